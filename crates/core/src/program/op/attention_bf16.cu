ATTENTION(attention_bf16_64, Bf16, 64, 64, 4)
ATTENTION(attention_bf16_128, Bf16, 128, 64, 2)
