"""Contenders of the checkpoint benchmarks, and the lock-step they run in.

A worker process trains one model under one framework and does what it is told line by line, in
windows of a few steps (windows.py). The orchestrator (lockstep.py) lets one worker at a time work.
Millrace's worker is tests/torch/peer_worker.cc: the same model, the same protocol.

A contender is a class with

    run(step_done)              trains; calls step_done() after each step, until that is False
    save(path, durable, done)   returns when training may go on; done() is called when the file is
                                written, durably if asked, on whichever thread that is
    drain()                     returns when everything is written
    state()                     the live tensors that a save writes, nested
    suffix                      of the checkpoint's path
"""
