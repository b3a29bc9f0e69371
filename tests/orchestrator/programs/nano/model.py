from torch import nn
from torch.nn import functional as F


class TinyGPT(nn.Module):
    def __init__(self, vocab=32, width=16, block=8):
        super().__init__()
        self.wte = nn.Embedding(vocab, width)
        self.wpe = nn.Embedding(block, width)
        self.h = nn.TransformerEncoderLayer(width, 2, 32, dropout=0.0, batch_first=True)
        self.lm_head = nn.Linear(width, vocab, bias=False)

    def forward(self, idx, targets):
        positions = self.wpe.weight[: idx.size(1)]
        mask = nn.Transformer.generate_square_subsequent_mask(idx.size(1))
        logits = self.lm_head(self.h(self.wte(idx) + positions, src_mask=mask, is_causal=True))
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())
