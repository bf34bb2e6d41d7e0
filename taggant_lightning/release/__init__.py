"""What is published: the Signature, layouts, documents, writing and reading them, and the audit of the owner."""
