"""One suite for every method callback of the package; a new method is found and tested the day it is exported."""
