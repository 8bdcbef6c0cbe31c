import pkgutil

import pytest

# What the helpers assert is told as what the tests assert: with both sides.
pytest.register_assert_rewrite(*(module.name for module in pkgutil.iter_modules(__path__, f"{__name__}.")))
