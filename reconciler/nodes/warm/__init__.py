"""Ansible that is already there: a parent has imported it once, and each run is a fork of the parent.

``process`` keeps the parent for a ``Runner``. ``client`` is what ansible_runner starts in place of the plain program.
``parent`` and ``child`` are a program of their own, under the GPL as Ansible is: nothing here imports them.
"""
