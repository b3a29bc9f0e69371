"""The same with three lines: a callback reports, parameters come from the trial."""

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments, set_seed

import geosweep

trial = geosweep.trial(learning_rate=1e-3)


class Report(TrainerCallback):
    def on_evaluate(self, args, state, control, metrics, **more):
        trial.report(state.global_step, eval_loss=metrics["eval_loss"])


set_seed(trial.seed)
args = TrainingArguments(output_dir=str(trial.folder / "out"), max_steps=int(trial.budget) if trial.in_sweep else 8,
                         learning_rate=trial.parameters["learning_rate"], eval_strategy="steps", eval_steps=4,
                         save_strategy="no", report_to="none", seed=trial.seed, use_cpu=True,
                         disable_tqdm=True)  # fmt: skip
model = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_positions=8, n_embd=16, n_layer=1, n_head=2, bos_token_id=0,
                                   eos_token_id=0))  # fmt: skip
rows = [torch.arange(i, i + 8).remainder(29) for i in range(64)]
data = [{"input_ids": row, "labels": row} for row in rows]
Trainer(model=model, args=args, train_dataset=data, eval_dataset=data[:16], callbacks=[Report()]).train()
