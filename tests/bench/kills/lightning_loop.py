"""Lightning's Trainer with ModelCheckpoint(save_last=True), resumed with ckpt_path="last".

usage: lightning_loop.py WORK_DIR
"""

import sys

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

WIDTH = 2048


def say(word, number):
    print(word, number, flush=True)


class Net(pl.LightningModule):

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(WIDTH, WIDTH)

    def training_step(self, batch, batch_idx):
        return ((self.layer(batch[0]) - batch[1])**2).mean()

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


class SpokenModelCheckpoint(ModelCheckpoint):

    def on_train_start(self, trainer, pl_module):
        say("resumed", trainer.global_step)

    def on_train_batch_end(self, trainer, *args):
        due = trainer.global_step % 2 == 0
        if due:
            say("saving", trainer.global_step)
        super().on_train_batch_end(trainer, *args)
        if due:
            say("saved", trainer.global_step)


def main(work_dir):
    torch.set_num_threads(1)
    data = torch.utils.data.TensorDataset(torch.randn(16, WIDTH), torch.randn(16, WIDTH))
    trainer = pl.Trainer(
        max_steps=10**9, max_epochs=-1, accelerator="cpu", devices=1, logger=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=work_dir,
        callbacks=[SpokenModelCheckpoint(dirpath=work_dir, save_last=True, every_n_train_steps=2)])
    trainer.fit(Net(), torch.utils.data.DataLoader(data, batch_size=8), ckpt_path="last")


if __name__ == "__main__":
    main(*sys.argv[1:])
