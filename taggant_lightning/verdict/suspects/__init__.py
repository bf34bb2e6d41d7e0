"""Ways of asking a suspect: a table of answers, a model in a file, a service, a function, a module."""
