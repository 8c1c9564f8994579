// The strategy's device: which names there are, and what is said where there is no such device.
#include "millrace/runtime/torch/single_device.h"

#include <gmock/gmock.h>

#include "millrace/runtime/async/error.h"
#include "millrace/runtime/device/cuda_device.h"
#include "millrace/runtime/staging/state_gate.h"
#include "millrace/runtime/torch/step_device.h"
#include "tests/torch/support/small_nets.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

std::string nearest_to(const char* device) {
  try {
    check_device(device);
  } catch (const ConfigError& error) {
    EXPECT_EQ(error.key(), "device");
    return error.nearest();
  }
  return "it was taken";
}

TEST(SingleDevice, UnknownDevicesAreRefusedWithTheNearest) {
  EXPECT_NO_THROW(check_device("cpu"));
  EXPECT_EQ(nearest_to("cpuu"), "cpu");
  EXPECT_EQ(nearest_to("cudda:1"), "cuda");
  EXPECT_EQ(nearest_to("gpu"), "cuda");
  for (const char* device : {"cuda:", "cuda:x", "cuda:-1", "cuda:1x", "cuda1", "CPU"}) {
    EXPECT_THAT([&] { check_device(device); },
                ThrowsMessage<ConfigError>(
                    AllOf(HasSubstr("unknown device"), HasSubstr("cpu, cuda, cuda:<number>"))))
        << device;
  }
}

TEST(SingleDevice, WithoutAGpuTheStrategySaysSoBeforeTraining) {
  try {
    open_cuda_device(0);
    GTEST_SKIP() << "there is a GPU here";
  } catch (const ConfigError&) {
  }
  EXPECT_THAT([] { make_single_device(test::mixed_net(), adamw(), {.device = "cuda"}); },
              ThrowsMessage<ConfigError>(HasSubstr("use the device cpu")));
}

// A checkpoint of a GPU has its generator's state behind the host's.
TEST(SingleDevice, ARunOnTheHostGoesOnFromAGpusGenerators) {
  const auto strategy = make_single_device(test::mixed_net(), adamw(), {.threads = 1});
  StateGate gate;
  strategy->prepare(3, gate);
  const std::string state = strategy->save_rng();
  set_randomness(4);
  ASSERT_NE(strategy->save_rng(), state);
  strategy->load_rng(state + std::string(16, 'x'));
  EXPECT_EQ(strategy->save_rng(), state);
  EXPECT_THROW(strategy->load_rng(state.substr(1)), Error);
}

}  // namespace
}  // namespace millrace
