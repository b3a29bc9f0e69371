"""A plain PyTorch script as people write it: argparse, a loop, a line printed now and then."""

import argparse

import torch
from torch import nn


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--nesterov", action="store_true")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    x = torch.randn(512, 8)
    y = (x @ torch.arange(1.0, 9.0)).unsqueeze(1)
    data = torch.utils.data.TensorDataset(x[:448], y[:448])
    loader = torch.utils.data.DataLoader(data, batch_size=args.batch_size, shuffle=True)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.5, nesterov=args.nesterov)
    step = 0
    while step < args.steps:
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(inputs), targets)
            loss.backward()
            optimizer.step()
            step += 1
            if step % 10 == 0:
                with torch.no_grad():
                    val = nn.functional.mse_loss(model(x[448:]), y[448:]).item()
                print(f"[{step}/{args.steps}] train loss: {loss.item():.4f} | val loss: {val:.4f}")
            if step == args.steps:
                break


if __name__ == "__main__":
    main()
