"""MMEngine's Runner with its CheckpointHook, resumed as its documentation says: resume=True.

usage: mmengine_loop.py WORK_DIR MAX_KEEP
"""

import sys

import torch
from mmengine.hooks import CheckpointHook
from mmengine.model import BaseModel
from mmengine.registry import HOOKS
from mmengine.runner import Runner

WIDTH = 2048


def say(word, number):
    print(word, number, flush=True)


class Net(BaseModel):

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(WIDTH, WIDTH)

    def forward(self, x, y, mode):
        return {"loss": ((self.layer(x) - y)**2).mean()}


@HOOKS.register_module()
class SpokenCheckpointHook(CheckpointHook):

    def before_train(self, runner):
        super().before_train(runner)
        say("resumed", runner.iter)

    def _save_checkpoint(self, runner):
        say("saving", runner.iter + 1)
        super()._save_checkpoint(runner)
        say("saved", runner.iter + 1)


def main(work_dir, keep):
    torch.set_num_threads(1)
    data = [(torch.randn(WIDTH), torch.randn(WIDTH)) for _ in range(16)]
    runner = Runner(
        Net(), work_dir=work_dir, resume=True, log_level="ERROR",
        train_dataloader=dict(dataset=data, batch_size=8,
                              sampler=dict(type="InfiniteSampler", shuffle=True),
                              collate_fn=dict(type="default_collate")),
        train_cfg=dict(by_epoch=False, max_iters=10**9),
        optim_wrapper=dict(optimizer=dict(type="AdamW", lr=1e-3)),
        default_hooks=dict(checkpoint=dict(type="SpokenCheckpointHook", interval=2, by_epoch=False,
                                           max_keep_ckpts=int(keep))))
    runner.train()


if __name__ == "__main__":
    main(*sys.argv[1:])
