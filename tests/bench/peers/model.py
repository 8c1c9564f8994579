"""The model that every contender trains: linear layers with AdamW, as large as asked for."""

import torch

WIDTH = 1024
LAYER_BYTES = 4 * (WIDTH * WIDTH + WIDTH)


class Mlp(torch.nn.Module):
    def __init__(self, mib):
        """`mib`: of parameters and both optimizer states together."""
        super().__init__()
        depth = max(1, (mib << 20) // (3 * LAYER_BYTES))
        self.layers = torch.nn.ModuleList(torch.nn.Linear(WIDTH, WIDTH) for _ in range(depth))

    def forward(self, x):
        for layer in self.layers:
            x = torch.relu(layer(x))
        return x


def loss_of(model, batch):
    inputs, labels = batch
    return torch.nn.functional.cross_entropy(model(inputs), labels)


def optimizer_for(model):
    return torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)


class Batches(torch.utils.data.Dataset):
    """Four whole batches, again and again: no epoch ends in a benchmark."""

    def __init__(self, batch):
        self.batches = [
            (torch.randn(batch, WIDTH), torch.randint(WIDTH, (batch,))) for _ in range(4)
        ]

    def __len__(self):
        return 1_000_000_000

    def __getitem__(self, index):
        return self.batches[index % 4]


class InOrder(torch.utils.data.Sampler):
    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def __iter__(self):
        return iter(range(len(self.dataset)))


def loader(batch):
    dataset = Batches(batch)
    return torch.utils.data.DataLoader(
        dataset, batch_size=1, sampler=InOrder(dataset), collate_fn=lambda batches: batches[0]
    )
