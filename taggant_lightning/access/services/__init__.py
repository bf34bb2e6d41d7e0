"""HTTP classification services as black boxes: the wire, the client, the journal that a run goes on from."""
