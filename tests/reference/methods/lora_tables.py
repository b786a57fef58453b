"""LoRA on tables of embeddings beside linear maps, by peft's own layers."""

CASES = [("lora_tables", "lora { rank = 4, alpha = 8, on = {embeddings.word, embeddings.position, attention.query} }", 2e-3)]
