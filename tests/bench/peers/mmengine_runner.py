"""MMEngine's Runner with its default hooks, saving as its CheckpointHook does."""

import os

from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.runner import IterBasedTrainLoop, Runner

from peers import files, model


class Network(BaseModel):
    def __init__(self, mib):
        super().__init__()
        self.body = model.Mlp(mib)

    def forward(self, inputs, labels, mode="loss"):
        return {"loss": model.loss_of(self.body, (inputs, labels))}


class AfterStep(Hook):
    priority = "LOWEST"

    def __init__(self, step_done):
        self.step_done = step_done

    def after_train_iter(self, runner, *_, **__):
        if not self.step_done():
            runner.train_loop.stop_training = True


class MmengineRunner:
    suffix = ".pth"

    def __init__(self, folder, mib, batch):
        network = Network(mib)
        loader = model.loader(batch)
        self.runner = Runner(
            network,
            work_dir=os.path.join(folder, "work"),
            train_dataloader=loader,
            train_cfg={"type": IterBasedTrainLoop, "max_iters": 1_000_000_000},
            optim_wrapper=OptimWrapper(model.optimizer_for(network)),
            default_hooks={"checkpoint": None},  # the windows say when
            log_level="WARNING",
            randomness={"seed": 1},
        )

    def run(self, step_done):
        self.runner.register_hook(AfterStep(step_done))
        self.runner.train()

    def state(self):
        return [self.runner.model.state_dict(), self.runner.optim_wrapper.state_dict()]

    def save(self, path, durable, done):
        self.runner.save_checkpoint(str(path.parent), path.name, by_epoch=False)
        if durable:
            files.make_durable(path)
        done()

    def drain(self):
        pass
