"""What all processes share on the wire: RPC, membership, tokens, close codes, replicated maps, logs."""
