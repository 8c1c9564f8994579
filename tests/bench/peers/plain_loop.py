"""A loop without a framework, saving with torch.save or with torch.distributed.checkpoint."""

from concurrent import futures

import torch
from torch.distributed import checkpoint
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

from peers import files, model


class PlainLoop:
    suffix = ".pth"

    def __init__(self, _folder, mib, batch):
        self.model = model.Mlp(mib)
        self.optimizer = model.optimizer_for(self.model)
        self.loader = model.loader(batch)

    def run(self, step_done):
        for batch in self.loader:
            self.optimizer.zero_grad()
            model.loss_of(self.model, batch).backward()
            self.before_update()
            self.optimizer.step()
            if not step_done():
                return

    def before_update(self):
        pass

    def state(self):
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}


class TorchSave(PlainLoop):
    def save(self, path, durable, done):
        torch.save(self.state(), path)
        if durable:
            files.make_durable(path)
        done()

    def drain(self):
        pass


class Distributed(PlainLoop):
    """async_save() as it comes: a stager per save, which copies before the call returns."""

    suffix = ""
    stager = None

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.finished = None  # the future of the save under way, with its fsyncs

    def save(self, path, durable, done):
        self.drain()  # as its users do: one save at a time
        finished = self.finished = futures.Future()

        def written(writing):
            try:
                writing.result()
                if durable:
                    files.make_durable(path)  # the writer has synced the files
                done()
                finished.set_result(None)
            except BaseException as error:
                finished.set_exception(error)

        writer = checkpoint.FileSystemWriter(path, sync_files=durable)
        answer = checkpoint.async_save(
            self.state(), storage_writer=writer, async_stager=self.stager, no_dist=True
        )
        self.upload_of(answer).add_done_callback(written)

    def upload_of(self, answer):
        return answer

    def drain(self):
        if self.finished:
            self.finished.result()
            self.finished = None


class DistributedKept(Distributed):
    """One stager for all saves: its memory is reused."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.stager = DefaultStager(StagingOptions(False, False, False, False))


class DistributedAsync(Distributed):
    """Staged on a thread of the stager's; the optimizer waits for it."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.stager = DefaultStager(StagingOptions(False, False, True, False))
        self.staging = None

    def upload_of(self, answer):
        self.staging = answer.staging_completion
        return answer.upload_completion

    def before_update(self):
        if self.staging:
            self.staging.result()
            self.staging = None
