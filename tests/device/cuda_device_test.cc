// The CUDA back-end on a fake of its runtime: what it calls, what it says when a call fails, and
// that the fake sees what a real runtime would let pass.
#include "millrace/runtime/device/cuda_device.h"

#include <gmock/gmock.h>

#include <atomic>
#include <cstring>
#include <thread>
#include <utility>

#include "millrace/runtime/async/error.h"
#include "millrace/runtime/device/cuda_pack.h"
#include "millrace/runtime/device/device_error.h"
#include "tests/support/fake_cuda/fake_cuda.h"
#include "tests/support/images.h"

namespace millrace {
namespace {

using test::FakeCuda;
using test::FakeCudaOptions;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::ThrowsMessage;

TEST(CudaDevice, ThreeReasonsWhyThereIsNone) {
  const auto open = [](int index) { return [index] { open_cuda_device(index); }; };
  FakeCudaOptions options;
  options.driver = 0;
  {
    FakeCuda cuda(options);
    EXPECT_THAT(open(0), ThrowsMessage<ConfigError>(HasSubstr("no NVIDIA driver")));
  }
  options.driver = 12040;
  {
    FakeCuda cuda(options);
    EXPECT_THAT(open(0), ThrowsMessage<ConfigError>(
                             HasSubstr("serves CUDA 12.4 and this build needs 13.0")));
  }
  options = {};
  options.devices = 0;
  {
    FakeCuda cuda(options);
    EXPECT_THAT(open(0), ThrowsMessage<ConfigError>(HasSubstr("no GPU is visible")));
  }
  options.devices = 2;
  FakeCuda cuda(options);
  EXPECT_EQ(open_cuda_device(1)->name(), "cuda:1");
  EXPECT_THAT(open(2), ThrowsMessage<ConfigError>(HasSubstr("no cuda:2, only cuda:0 to cuda:1")));
}

TEST(CudaDevice, AFailedCallIsNamedWithCodeAndText) {
  FakeCudaOptions options;
  options.failing_call = 7;
  options.error = cudaErrorIllegalAddress;
  options.sticky = true;
  FakeCuda cuda(options);
  const auto device = open_cuda_device(0);
  try {
    for (int i = 0; i < 10; ++i) static_cast<void>(device->memory());
    FAIL() << "no call failed";
  } catch (const DeviceError& error) {
    EXPECT_THAT(error.what(),
                HasSubstr(error.call() + " on cuda:0: cudaErrorOfTheFake, the fake "));
    EXPECT_EQ(error.code(), cudaErrorIllegalAddress);
    EXPECT_TRUE(error.sticky());
  }
  EXPECT_THROW(static_cast<void>(device->memory()), DeviceError) << "a lost device stays lost";
}

TEST(CudaDevice, ACallLeavesItsDeviceTheCurrentOneOfTheThread) {
  FakeCudaOptions options;
  options.devices = 2;
  FakeCuda cuda(options);
  const auto current = [] {
    int device = -1;
    EXPECT_EQ(cudaGetDevice(&device), cudaSuccess);
    return device;
  };
  const auto first = open_cuda_device(0), second = open_cuda_device(1);
  EXPECT_EQ(current(), 0) << "to open it makes no context there";
  const auto stream = second->make_stream(StreamPriority::kNormal);
  EXPECT_EQ(current(), 1);
  const auto event = first->make_event();
  EXPECT_EQ(current(), 0);
  const auto buffer = second->allocate(64), table = second->allocate(sizeof(PackPiece));
  EXPECT_EQ(current(), 1);
  static_cast<void>(first->memory());
  EXPECT_EQ(current(), 0);
  stream->pack(buffer->bytes(), {reinterpret_cast<const PackPiece*>(table->data()), 0});
  EXPECT_EQ(current(), 1);
  stream->synchronize();
  EXPECT_THAT(cuda.violations(), IsEmpty());
}

// What the fake is for.
TEST(FakeCuda, SeesWhatARealRuntimeLetsPass) {
  FakeCuda cuda;
  auto host = test::pattern(100, 1), memory = test::pattern(100, 2);
  cuda.own(memory);
  const cudaStream_t stream = cuda.stream();
  std::atomic<bool> open{false};
  const auto hold = [&] {
    cuda.launch(stream, [&] {
      while (!open) std::this_thread::yield();
    });
  };
  std::size_t seen = 0;
  const auto violation = [&cuda, &seen] {
    const auto all = cuda.violations();
    return all.size() > seen ? all[seen++] : std::string("none");
  };
  cudaEvent_t event = nullptr;
  ASSERT_EQ(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), cudaSuccess);
  cudaStreamWaitEvent(stream, event, 0);
  EXPECT_THAT(violation(), HasSubstr("never recorded"));
  cudaEventRecord(event, stream);
  cudaEventSynchronize(event);
  EXPECT_THAT(violation(), HasSubstr("spins"));
  cudaEventDestroy(event);
  cudaStreamWaitEvent(stream, event, 0);
  EXPECT_THAT(violation(), HasSubstr("destroyed"));

  cudaMemcpyAsync(host.data(), memory.data(), 100, cudaMemcpyDeviceToHost, stream);
  EXPECT_THAT(violation(), HasSubstr("not pinned"));
  cudaStreamSynchronize(stream);
  cudaHostRegister(host.data(), 100, cudaHostRegisterPortable);
  hold();
  cudaMemcpyAsync(host.data(), memory.data(), 50, cudaMemcpyDeviceToHost, stream);
  EXPECT_NE(host[0], memory[0]) << "rubbish until the event";
  cudaMemcpyAsync(host.data() + 49, memory.data(), 10, cudaMemcpyDeviceToHost, stream);
  EXPECT_THAT(violation(), HasSubstr("used again"));
  cuda.disown(memory);
  EXPECT_THAT(violation(), HasSubstr("device memory is given back"));
  violation();
  cudaHostUnregister(host.data());
  EXPECT_THAT(violation(), HasSubstr("pinned memory is given back"));
  violation();
  open = true;
  cuda.forbid_waiting();
  cudaStreamSynchronize(stream);
  EXPECT_THAT(violation(), HasSubstr("must not wait"));
}

// Two streams of a fake, and what they do to the same bytes.
class FakeCudaOrder : public ::testing::Test {
 protected:
  FakeCudaOrder() {
    cuda_.own(memory_);
    cudaEventCreateWithFlags(&event_, cudaEventDisableTiming | cudaEventBlockingSync);
  }
  ~FakeCudaOrder() override { cudaEventDestroy(event_); }
  void kernel(cudaStream_t stream, bool writes, std::size_t first = 0, std::size_t count = 100) {
    cuda_.launch(stream, [] {}, {{std::span(memory_).subspan(first, count), writes}});
  }
  std::vector<std::string> violations() { return cuda_.violations(); }

  FakeCuda cuda_;
  std::vector<std::byte> memory_ = test::pattern(100, 1);
  const cudaStream_t one_ = cuda_.stream(), other_ = cuda_.stream();
  cudaEvent_t event_ = nullptr;
};

TEST_F(FakeCudaOrder, OneStreamOrReadersOrOtherBytesNeedNone) {
  for (const bool writes : {true, false, true, true}) kernel(one_, writes, 0, 50);
  kernel(other_, true, 50, 50);
  kernel(other_, false, 60, 10);
  kernel(one_, false, 60, 0);
  cuda_.drain(other_);
  kernel(one_, false, 50, 50);
  kernel(other_, false, 50, 50);
  EXPECT_THAT(violations(), IsEmpty());
}

TEST_F(FakeCudaOrder, AWriteBesideAReadIsSeenWhateverTheScheduleMadeOfIt) {
  kernel(one_, false, 0, 50);
  kernel(other_, true, 49, 10);
  EXPECT_THAT(violations(), ElementsAre(HasSubstr("a kernel writes device memory that a kernel may "
                                                  "still be reading")));
}

TEST_F(FakeCudaOrder, AnEventOrdersWhatIsBeforeItAndNothingElse) {
  kernel(one_, true);
  cudaEventRecord(event_, one_);
  cudaStreamWaitEvent(other_, event_, 0);
  kernel(other_, false);
  EXPECT_THAT(violations(), IsEmpty());
  kernel(one_, true);
  EXPECT_THAT(violations(), ElementsAre(HasSubstr("may still be reading")));
}

TEST_F(FakeCudaOrder, WhatTheHostHasSeenDoneIsBeforeAllThatComes) {
  kernel(one_, true);
  cudaEventRecord(event_, one_);
  cudaEventSynchronize(event_);
  kernel(other_, true);
  cudaEventRecord(event_, other_);
  while (cudaEventQuery(event_) != cudaSuccess) std::this_thread::yield();
  kernel(one_, true);
  cudaStreamSynchronize(one_);
  kernel(other_, true);
  EXPECT_THAT(violations(), IsEmpty());
}

TEST(FakeCuda, ADeafStreamPassesOverItsWaits) {
  for (const test::Deaf deaf : {test::Deaf::kNone, test::Deaf::kLent, test::Deaf::kOwn}) {
    FakeCudaOptions options;
    options.deaf = deaf;
    FakeCuda cuda(options);
    auto memory = test::pattern(100, 1);
    const auto device = open_cuda_device(0);
    const auto own = device->make_stream(StreamPriority::kNormal);
    const cudaStream_t stream = cuda.stream();
    const auto lent = borrow_cuda_stream(*device, stream);
    const auto event = device->make_event();
    auto host = memory;
    const auto pin = device->pin(host);
    cuda.own(memory);
    cuda.launch(stream, [] {}, {{memory, true}});
    lent->record(*event);
    own->wait_for(*event);
    own->copy_to_host(host, memory.data());
    own->record(*event);
    lent->wait_for(*event);
    cuda.launch(stream, [] {}, {{memory, true}});
    EXPECT_EQ(cuda.violations().size(), deaf == test::Deaf::kNone ? 0u : 1u);
    own->synchronize();
  }
}

// A table, a buffer and a source on the device, two streams, and a way to hold one up.
struct PackScene {
  PackScene() {
    for (void** memory : {&table, &buffer, &source}) cudaMalloc(memory, 256);
    put({{static_cast<std::byte*>(source), 0, 100}});
  }
  ~PackScene() {
    open = true;
    for (const cudaStream_t stream : {first, second}) cudaStreamSynchronize(stream);
    for (void* const memory : {table, buffer, source}) cudaFree(memory);
  }
  // As if a copy had brought it.
  void put(const std::vector<PackPiece>& pieces) {
    std::memcpy(table, pieces.data(), pieces.size() * sizeof(PackPiece));
  }
  void pack(cudaStream_t stream, void* list, void* to) {
    launch_pack(static_cast<const PackPiece*>(list), 1, static_cast<std::byte*>(to), stream);
  }
  void copy_out(cudaStream_t stream) {
    cudaMemcpyAsync(host.data(), buffer, host.size(), cudaMemcpyDeviceToHost, stream);
  }
  void hold(cudaStream_t stream) {
    cuda.launch(stream, [this] {
      while (!open) std::this_thread::yield();
    });
  }
  std::vector<std::string> seen_after(cudaStream_t stream) {
    cudaStreamSynchronize(stream);
    return cuda.violations();
  }

  FakeCuda cuda;
  cudaStream_t first = cuda.stream(), second = cuda.stream();
  std::vector<std::byte> host = test::pattern(100, 1);
  std::atomic<bool> open{false};
  void *table = nullptr, *buffer = nullptr, *source = nullptr;
};

TEST(FakeCuda, APackTouchesTheMemoryOfTheDeviceAlone) {
  std::vector<std::byte> ours(256);
  {
    PackScene scene;
    scene.pack(scene.first, ours.data(), scene.buffer);
    EXPECT_THAT(scene.seen_after(scene.first), ElementsAre("pack: the table was not allocated"));
  }
  {
    PackScene scene;
    scene.pack(scene.first, scene.table, ours.data());
    EXPECT_THAT(scene.seen_after(scene.first), ElementsAre("pack: the buffer was not allocated"));
  }
  for (const PackPiece& bad : {PackPiece{ours.data(), 0, 1}, PackPiece{nullptr, 250, 7}}) {
    PackScene scene;
    scene.put({{bad.from != nullptr ? bad.from : static_cast<std::byte*>(scene.source), bad.offset,
                bad.size}});
    scene.pack(scene.first, scene.table, scene.buffer);
    EXPECT_THAT(
        scene.seen_after(scene.first),
        ElementsAre(HasSubstr(bad.from != nullptr ? "does not have" : "leaves the buffer")));
  }
}

TEST(FakeCuda, AStreamThatOvertakesAnotherIsSeen) {
  {
    PackScene scene;
    cudaHostRegister(scene.host.data(), scene.host.size(), cudaHostRegisterPortable);
    scene.hold(scene.first);
    scene.copy_out(scene.first);
    scene.pack(scene.second, scene.table, scene.buffer);
    EXPECT_THAT(scene.seen_after(scene.second),
                ElementsAre(HasSubstr("a pack writes device memory that cudaMemcpyAsync may still"),
                            "a pack overtakes a copy"));
  }
  {
    PackScene scene;
    cudaHostRegister(scene.host.data(), scene.host.size(), cudaHostRegisterPortable);
    scene.hold(scene.first);
    scene.pack(scene.first, scene.table, scene.buffer);
    scene.copy_out(scene.second);
    EXPECT_THAT(scene.seen_after(scene.second),
                ElementsAre(HasSubstr("reads device memory that a pack may still be writing"),
                            "a copy overtakes a pack"));
  }
}

TEST(FakeCuda, DeviceMemoryInUseIsNotFreedNorLeftBehindNorMadeWhileTraining) {
  PackScene scene;
  scene.hold(scene.first);
  scene.pack(scene.first, scene.table, scene.buffer);
  void* another = nullptr;
  cudaMalloc(&another, 10);
  EXPECT_THAT(scene.cuda.check(), Contains("4 block(s) of device memory left behind"));
  cudaFree(another);
  EXPECT_THAT(scene.cuda.violations(), IsEmpty());
  cudaFree(std::exchange(scene.buffer, nullptr));
  EXPECT_THAT(scene.cuda.violations(), ElementsAre(HasSubstr("given back while a pack")));
  scene.open = true;
  cudaStreamSynchronize(scene.first);
  scene.cuda.forbid_waiting();
  cudaMalloc(&scene.buffer, 10);
  EXPECT_THAT(scene.cuda.violations(), Contains("cudaMalloc blocks a thread that must not wait"));
}

}  // namespace
}  // namespace millrace
