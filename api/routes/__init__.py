"""One module per kind of resource. Handlers parse, make one call and answer."""
