// DistSamplerSeedHook: gives the sampler the number of the epoch that begins, so that each epoch
// has its own order. In an iteration-based run the loop counts the
// sampler's epochs itself.
#pragma once

#include <string_view>

#include "millrace/runtime/engine/hook.h"

namespace millrace {

class DistSamplerSeedHook final : public Hook {
 public:
  std::string_view name() const override { return "DistSamplerSeedHook"; }
  void attach(RunContext& run) override { run_ = &run; }
  void subscribe(Subscriptions& on) override;

 private:
  RunContext* run_ = nullptr;
};

}  // namespace millrace
