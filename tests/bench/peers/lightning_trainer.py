"""Lightning's Trainer, saving as its ModelCheckpoint does, with and without its async plugin."""

import pathlib

import pytorch_lightning as lightning
from pytorch_lightning.plugins.io import AsyncCheckpointIO, TorchCheckpointIO

from peers import files, model


class Network(lightning.LightningModule):
    def __init__(self, mib):
        super().__init__()
        self.body = model.Mlp(mib)

    def training_step(self, batch, _):
        return model.loss_of(self.body, batch)

    def configure_optimizers(self):
        return model.optimizer_for(self)


class AfterStep(lightning.Callback):
    def __init__(self, step_done):
        self.step_done = step_done

    def on_train_batch_end(self, trainer, *_):
        if not self.step_done():
            trainer.should_stop = True


class DurableIO(TorchCheckpointIO):
    """Lightning's own writer, and fsync where asked for. The options are (durable, done)."""

    def save_checkpoint(self, checkpoint, path, storage_options=None):
        durable, done = storage_options
        super().save_checkpoint(checkpoint, path)
        if durable:
            files.make_durable(pathlib.Path(path))
        done()


class LightningTrainer:
    suffix = ".ckpt"

    def __init__(self, folder, mib, batch):
        self.network = Network(mib)
        self.loader = model.loader(batch)
        self.writer = DurableIO()
        self.trainer_options = {
            "default_root_dir": folder,
            "accelerator": "cpu",
            "max_steps": -1,
            "max_epochs": -1,
            "logger": False,
            "enable_checkpointing": False,  # the windows say when
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "plugins": [self.plugin()],
        }

    def plugin(self):
        return self.writer

    def run(self, step_done):
        self.trainer = lightning.Trainer(callbacks=[AfterStep(step_done)], **self.trainer_options)
        self.trainer.fit(self.network, self.loader)

    def state(self):
        return [self.network.state_dict(), self.trainer.optimizers[0].state_dict()]

    def save(self, path, durable, done):
        self.trainer.save_checkpoint(path, storage_options=(durable, done))

    def drain(self):
        pass


class LightningAsync(LightningTrainer):
    def plugin(self):
        self.asynchronous = AsyncCheckpointIO(self.writer)
        return self.asynchronous

    def drain(self):
        self.asynchronous.teardown()  # its only way to wait; the next save starts its thread again
