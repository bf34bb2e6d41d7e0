"""Tables, pictures and the sentences a person reads."""
