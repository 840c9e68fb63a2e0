"""Made-up users of many countries, plus strings and rows that are meant to hurt.

The same seed gives the same bytes, with the same version of Faker.
"""
