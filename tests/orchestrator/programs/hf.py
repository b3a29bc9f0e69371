"""A Hugging Face Trainer over a tiny model made from its configuration; nothing is downloaded."""

import torch
from transformers import GPT2Config, GPT2LMHeadModel, HfArgumentParser, Trainer, TrainingArguments, set_seed

(args,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses()
set_seed(args.seed)
model = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_positions=8, n_embd=16, n_layer=1, n_head=2, bos_token_id=0,
                                   eos_token_id=0))  # fmt: skip
rows = [torch.arange(i, i + 8).remainder(29) for i in range(64)]
data = [{"input_ids": row, "labels": row} for row in rows]
trainer = Trainer(model=model, args=args, train_dataset=data, eval_dataset=data[:16])
trainer.train()
print(trainer.evaluate())
