// A user's hook: no LibTorch, only the stages it serves.
#pragma once

#include <millrace/events/checkpoint_events.h>
#include <millrace/runtime/engine/hook.h>
#include <millrace/runtime/engine/run_context.h>

#include <cstdio>

class StopWhenLearned final : public millrace::Hook {
 public:
  std::string_view name() const override { return "StopWhenLearned"; }
  void attach(millrace::RunContext& run) override { run_ = &run; }

  void subscribe(millrace::Subscriptions& on) override {
    on.every<millrace::AfterValEpoch>([this](const millrace::AfterValEpoch& event) {
      if (event.metrics[0].value > 0.99) run_->request_stop("it has learned enough");
    });
    // On the observer's thread, whenever it gets to it: never delays training.
    on.background<millrace::CheckpointCommitted>({.capacity = 64}, [](const auto& row) {
      std::printf("%s is durable\n", row.name.c_str());
    });
  }

 private:
  millrace::RunContext* run_ = nullptr;
};
