"""A release: the signed dataset as files with a public manifest. Layouts, documents, writing, reading, and what must hold."""
