"""A Lightning script: its own arguments, a CSV logger in the folder that it is given."""

import argparse

import lightning as L
import torch
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader, TensorDataset


class Lit(L.LightningModule):
    def __init__(self, lr):
        super().__init__()
        self.lr = lr
        self.net = torch.nn.Linear(4, 1)

    def training_step(self, batch, index):
        return torch.nn.functional.mse_loss(self.net(batch[0]), batch[1])

    def validation_step(self, batch, index):
        self.log("val_loss", torch.nn.functional.mse_loss(self.net(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)


parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.05)
parser.add_argument("--max_steps", type=int, default=16)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--default_root_dir", default=".")
args = parser.parse_args()
L.seed_everything(args.seed)
x = torch.randn(64, 4)
y = x.sum(1, keepdim=True)
loader = DataLoader(TensorDataset(x, y), batch_size=16, shuffle=True)
trainer = L.Trainer(max_steps=args.max_steps, accelerator="cpu", logger=CSVLogger(args.default_root_dir),
                    enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
                    log_every_n_steps=1)  # fmt: skip
trainer.fit(Lit(args.lr), loader, DataLoader(TensorDataset(x, y), batch_size=64))
