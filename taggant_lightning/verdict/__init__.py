"""From answers to the record, and from a record to what a third party may believe of it."""
