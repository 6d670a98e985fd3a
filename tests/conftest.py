"""Settings of all tests: properties are judged by what they find, never by a clock."""

from hypothesis import settings

settings.register_profile("no clock", deadline=None)
settings.load_profile("no clock")
