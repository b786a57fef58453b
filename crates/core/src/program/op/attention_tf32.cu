ATTENTION(attention_tf32_64, Tf32, 64, 64, 3)
ATTENTION(attention_tf32_128, Tf32, 128, 32, 2)
