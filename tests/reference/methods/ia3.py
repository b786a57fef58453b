"""IA3, by peft's own layer."""

CASES = [("ia3", "ia3 { on = {attention.{key, value}, ffn.{up, down}} }", 2e-2)]
