#include "tests/support/fake_cuda/fake_cuda.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <random>
#include <set>
#include <shared_mutex>
#include <stdexcept>
#include <thread>

#include "millrace/runtime/device/cuda_pack.h"

namespace millrace::test {
namespace {

constexpr std::byte kRubbish{0xA5};
constexpr std::size_t kFreeBytes = std::size_t{6} << 30;

bool overlap(std::span<const std::byte> a, std::span<const std::byte> b) {
  return a.data() < b.data() + b.size() && b.data() < a.data() + a.size();
}
bool inside(std::span<const std::byte> part, std::span<const std::byte> whole) {
  return part.data() >= whole.data() && part.data() + part.size() <= whole.data() + whole.size();
}

thread_local bool t_may_not_wait = false;
thread_local int t_device = 0;  // the current one

// A moment in a stream: reached or not.
class Point {
 public:
  explicit Point(Clock clock = {}) : clock_(std::move(clock)) {}
  const Clock& clock() const { return clock_; }  // what is done when it is reached
  void reach() {
    const std::scoped_lock lock(mutex_);
    time_ = std::chrono::steady_clock::now();
    reached_ = true;
    changed_.notify_all();
  }
  bool reached() {
    const std::scoped_lock lock(mutex_);
    return reached_;
  }
  void wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return reached_; });
  }
  std::chrono::steady_clock::time_point time() {
    const std::scoped_lock lock(mutex_);
    return time_;
  }

 private:
  const Clock clock_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool reached_ = false;
  std::chrono::steady_clock::time_point time_;
};

}  // namespace
}  // namespace millrace::test

// The runtime's own names for what a handle points to.
struct CUevent_st {
  unsigned flags = 0;
  int device = 0;
  std::shared_ptr<millrace::test::Point> point;  // guarded by the runtime's mutex
};

struct CUstream_st {
  struct Operation {
    std::function<void()> run;
    bool always = false;  // also when the device is lost: others wait for it
  };

  CUstream_st(std::size_t number, int device, std::atomic<bool>& lost, std::uint32_t seed,
              std::chrono::microseconds longest)
      : number(number),
        device(device),
        lost_(lost),
        random_(seed),
        longest_(longest),
        thread_([this](std::stop_token stop) { run(stop); }) {}

  void put(Operation operation) {
    const std::scoped_lock lock(mutex_);
    queue_.push_back(std::move(operation));
    wake_.notify_one();
  }

  const std::size_t number;  // in the runtime's MemoryOrder
  const int device;

 private:
  void run(const std::stop_token& stop) {
    for (;;) {
      Operation operation;
      {
        std::unique_lock lock(mutex_);
        if (!wake_.wait(lock, stop, [this] { return !queue_.empty(); })) return;
        operation = std::move(queue_.front());
        queue_.pop_front();
      }
      if (longest_.count() > 0) {
        const auto most = static_cast<std::uint32_t>(longest_.count()) + 1;
        std::this_thread::sleep_for(std::chrono::microseconds(random_() % most));
      }
      if (operation.always || !lost_) operation.run();
    }
  }

  std::atomic<bool>& lost_;
  std::minstd_rand random_;  // of the thread
  const std::chrono::microseconds longest_;
  std::mutex mutex_;
  std::condition_variable_any wake_;
  std::deque<Operation> queue_;  // guarded by mutex_
  std::jthread thread_;
};

namespace millrace::test {

class FakeCuda::Runtime {
 public:
  explicit Runtime(FakeCudaOptions given) : options(given) {}

  // Whether the call is to fail, and with what. Every entry point begins with it.
  cudaError_t enter(const char* name) {
    const std::scoped_lock lock(mutex);
    ++calls[name];
    ++count;
    if (lost) return options.error;
    if (options.failing_call == 0 || count != options.failing_call) return cudaSuccess;
    if (options.sticky) {
      const std::scoped_lock copies(copying);  // when anybody knows, nothing is being copied
      lost = true;
    }
    return options.error;
  }
  void violation(const std::string& what) {
    const std::scoped_lock lock(mutex);
    note(what);
  }
  void note(const std::string& what) {  // mutex held
    if (violations.size() < 20) violations.push_back(what);
  }
  void blocks(const char* name) {
    if (t_may_not_wait) violation(std::string(name) + " blocks a thread that must not wait");
  }
  bool lives(cudaStream_t stream, const char* name) {
    const std::scoped_lock lock(mutex);
    if (streams.contains(stream)) return true;
    note(std::string(name) + ": no such stream, or it was destroyed");
    return false;
  }
  bool lives(cudaEvent_t event, const char* name) {
    const std::scoped_lock lock(mutex);
    if (events.contains(event)) return true;
    note(std::string(name) + ": no such event, or it was destroyed");
    return false;
  }
  std::shared_ptr<Point> point(cudaEvent_t event, const char* name) {
    const std::scoped_lock lock(mutex);
    if (!event->point) note(std::string(name) + ": the event was never recorded");
    return event->point;
  }
  cudaStream_t make_stream(int device) {
    const std::scoped_lock lock(mutex);
    auto made = std::make_unique<CUstream_st>(
        order.add_stream(), device, lost,
        options.seed * 7919 + static_cast<std::uint32_t>(streams.size()) + 1,
        options.longest_delay);
    const cudaStream_t stream = made.get();
    streams.emplace(stream, std::move(made));
    return stream;
  }

  // A point that has all of the stream's work so far before it.
  std::shared_ptr<Point> point_after(cudaStream_t stream) {
    const std::scoped_lock lock(mutex);
    return std::make_shared<Point>(order.record(stream->number));
  }
  void observe(const Point& point) {
    const std::scoped_lock lock(mutex);
    order.observe(point.clock());
  }
  void use(cudaStream_t stream, const char* name, const std::vector<Use>& uses) {
    const std::scoped_lock lock(mutex);
    const std::string wrong = order.put_in(stream->number, name, uses);
    if (!wrong.empty()) note(wrong);
    for (const Use& each : uses) {
      const int owner = device_of(each.memory);
      if (owner >= 0 && owner != stream->device)
        note(std::string(name) + ": another device's memory");
    }
  }
  bool deaf(cudaStream_t stream) {
    const std::scoped_lock lock(mutex);
    const bool is_lent = std::find(lent.begin(), lent.end(), stream) != lent.end();
    return options.deaf == (is_lent ? Deaf::kLent : Deaf::kOwn);
  }

  struct Copy {
    std::span<const std::byte> host, device;
    bool to_host;
  };
  // Notes the copy as under way, and what is wrong with it.
  void begin(std::uint64_t id, const Copy& copy) {
    const std::scoped_lock lock(mutex);
    const auto known = [](const auto& list, std::span<const std::byte> part) {
      return std::any_of(list.begin(), list.end(),
                         [&](const auto& whole) { return inside(part, whole); });
    };
    if (!known(pins, copy.host)) note("cudaMemcpyAsync: host memory that is not pinned");
    if (!known(owned, copy.device)) note("cudaMemcpyAsync: memory the device does not have");
    for (const auto& [other_id, other] : copies) {
      if ((copy.to_host || other.to_host) && overlap(copy.host, other.host)) {
        note("cudaMemcpyAsync: host memory of a copy under way is used again");
      }
    }
    copies.emplace(id, copy);
  }
  void end(std::uint64_t id) {
    const std::scoped_lock lock(mutex);
    copies.erase(id);
  }
  // Notes a copy of memory into which a pack put in before has not yet put anything.
  void overtakes_packs(std::uint64_t id) {
    const std::scoped_lock lock(mutex);
    const std::span<const std::byte> memory = copies.at(id).device;
    for (const auto& [other_id, pack] : packs) {
      if (other_id < id && overlap(memory, pack.buffer)) note("a copy overtakes a pack");
    }
  }

  struct Pack {
    std::span<const std::byte> table, buffer;  // the whole allocation
  };
  struct Block {
    std::vector<std::byte> bytes;
    int device;
  };
  // The allocation that `memory` lies in; mutex held.
  std::span<const std::byte> allocation_of(const std::byte* memory) const {
    for (const auto& [at, block] : allocated) {
      const std::span<const std::byte> whole(block.bytes);
      if (inside({memory, 1}, whole)) return whole;
    }
    return {};
  }
  int device_of(std::span<const std::byte> memory) const {  // mutex held
    for (const auto& [at, block] : allocated) {
      if (inside(memory, block.bytes)) return block.device;
    }
    return -1;
  }
  std::span<const std::byte> rest_of_allocation(const std::byte* memory) {
    const std::scoped_lock lock(mutex);
    const std::span<const std::byte> whole = allocation_of(memory);
    return whole.empty() ? whole : whole.subspan(static_cast<std::size_t>(memory - whole.data()));
  }
  std::uint64_t begin_pack(std::span<const std::byte> table, const std::byte* to) {
    const std::scoped_lock lock(mutex);
    const Pack pack{allocation_of(table.data()), allocation_of(to)};
    if (pack.table.empty() || !inside(table, pack.table)) note("pack: the table was not allocated");
    if (pack.buffer.empty()) note("pack: the buffer was not allocated");
    const std::uint64_t id = ++copy_ids;
    packs.emplace(id, pack);
    return id;
  }
  // On the stream's thread, which nobody else may have to wait for.
  void run_pack(std::uint64_t id, std::span<const millrace::PackPiece> table, std::byte* to) {
    const std::scoped_lock lock(mutex);
    packs.erase(id);
    const std::span<const std::byte> buffer =
        allocation_of(to);  // noted, if it was freed meanwhile
    if (lost || buffer.empty() || allocation_of(std::as_bytes(table).data()).empty()) return;
    bool overtakes = false;
    const auto good = [&](const millrace::PackPiece& piece) {
      const std::span<const std::byte> from(piece.from, piece.size),
          into(to + piece.offset, piece.size);
      const bool known = std::any_of(owned.begin(), owned.end(),
                                     [&](const auto& whole) { return inside(from, whole); });
      if (!known) note("pack: a piece of memory the device does not have");
      if (!inside(into, buffer)) note("pack: a piece leaves the buffer");
      overtakes = overtakes || std::any_of(copies.begin(), copies.end(), [&](const auto& copy) {
                    return copy.first < id && overlap(copy.second.device, into);
                  });
      return known && inside(into, buffer);
    };
    const bool all_good = std::all_of(table.begin(), table.end(), good);
    if (overtakes) note("a pack overtakes a copy");
    if (all_good) millrace::pack_on_host(table, to);
  }

  void* allocate(std::size_t size) {
    const std::scoped_lock lock(mutex);
    std::vector<std::byte> block(size, kRubbish);
    std::byte* const memory = block.data();
    order.forget(block);
    owned.emplace_back(memory, size);
    allocated.emplace(memory, Block{std::move(block), t_device});
    return memory;
  }
  bool free(std::byte* memory) {
    const std::scoped_lock lock(mutex);
    const auto found = allocated.find(memory);
    if (found == allocated.end()) return false;
    give_back(found->second.bytes, "device memory is");
    std::erase_if(owned, [&](const auto& each) { return each.data() == memory; });
    allocated.erase(found);
    return true;
  }

  void copy(std::span<std::byte> to, std::span<const std::byte> from) {
    const std::shared_lock running(copying);
    if (!lost) std::memcpy(to.data(), from.data(), from.size());
  }
  void give_back(std::span<const std::byte> memory, const char* what) {  // mutex held
    for (const auto& [id, pack] : packs) {
      if (lost) break;
      if (overlap(memory, pack.table) || overlap(memory, pack.buffer)) {
        note(std::string(what) + " given back while a pack is under way");
      }
    }
    for (const auto& [id, copy] : copies) {
      if (lost) break;
      if (overlap(memory, copy.host) || overlap(memory, copy.device)) {
        note(std::string(what) + " given back while a copy is under way");
      }
    }
  }

  const FakeCudaOptions options;
  std::atomic<bool> lost{false};
  std::shared_mutex copying;
  std::mutex mutex;  // guards what follows
  std::map<std::string, std::uint64_t> calls;
  std::uint64_t count = 0, copy_ids = 0;
  std::vector<std::string> violations;
  std::vector<std::span<const std::byte>> pins, owned;
  std::map<std::uint64_t, Copy> copies;
  MemoryOrder order;
  std::map<std::uint64_t, Pack> packs;
  std::map<std::byte*, Block> allocated;  // by cudaMalloc
  std::set<cudaEvent_t> events;
  std::vector<cudaStream_t> lent;  // by FakeCuda::stream()
  std::map<cudaStream_t, std::unique_ptr<CUstream_st>> streams;
};

namespace {
FakeCuda::Runtime* g_runtime = nullptr;  // the one that lives
}

FakeCuda::FakeCuda(FakeCudaOptions options) : runtime_(std::make_unique<Runtime>(options)) {
  if (g_runtime != nullptr) throw std::logic_error("FakeCuda: there is one already");
  g_runtime = runtime_.get();
}

FakeCuda::~FakeCuda() {
  runtime_->streams.clear();
  t_may_not_wait = false;
  t_device = 0;
  g_runtime = nullptr;
}

cudaStream_t FakeCuda::stream(int device) {
  const cudaStream_t made = runtime_->make_stream(device);
  runtime_->lent.push_back(made);
  return made;
}

void FakeCuda::launch(cudaStream_t stream, std::function<void()> kernel,
                      const std::vector<Use>& uses) {
  runtime_->use(stream, "a kernel", uses);
  stream->put({std::move(kernel)});
}

void FakeCuda::drain(cudaStream_t stream) {
  const auto point = runtime_->point_after(stream);
  stream->put({[point] { point->reach(); }, true});
  point->wait();
  runtime_->observe(*point);
}

void FakeCuda::own(std::span<std::byte> memory) {
  const std::scoped_lock lock(runtime_->mutex);
  runtime_->owned.push_back(memory);
  runtime_->order.forget(memory);
}

void FakeCuda::disown(std::span<std::byte> memory) {
  const std::scoped_lock lock(runtime_->mutex);
  runtime_->give_back(memory, "device memory is");
  runtime_->order.forget(memory);
  std::erase_if(runtime_->owned, [&](const auto& each) { return each.data() == memory.data(); });
}

int FakeCuda::device_of(std::span<const std::byte> memory) const {
  const std::scoped_lock lock(runtime_->mutex);
  return runtime_->device_of(memory);
}

void FakeCuda::forbid_waiting() { t_may_not_wait = true; }
void FakeCuda::allow_waiting() { t_may_not_wait = false; }

std::vector<std::string> FakeCuda::violations() const {
  const std::scoped_lock lock(runtime_->mutex);
  return runtime_->violations;
}

std::vector<std::string> FakeCuda::check() const {
  std::vector<std::string> found = violations();
  const std::scoped_lock lock(runtime_->mutex);
  const auto left = [&](std::size_t count, const std::string& what) {
    if (count > 0) found.push_back(std::to_string(count) + " " + what + " left behind");
  };
  left(runtime_->streams.size() - runtime_->lent.size(), "stream(s)");
  left(runtime_->events.size(), "event(s)");
  left(runtime_->pins.size(), "pin(s)");
  left(runtime_->allocated.size(), "block(s) of device memory");
  return found;
}

std::map<std::string, std::uint64_t> FakeCuda::calls() const {
  const std::scoped_lock lock(runtime_->mutex);
  return runtime_->calls;
}

std::uint64_t FakeCuda::pinned() const {
  const std::scoped_lock lock(runtime_->mutex);
  std::uint64_t bytes = 0;
  for (const auto& pin : runtime_->pins) bytes += pin.size();
  return bytes;
}

std::uint64_t FakeCuda::call_count() const {
  const std::scoped_lock lock(runtime_->mutex);
  return runtime_->count;
}

}  // namespace millrace::test

// ---- the entry points

using millrace::test::g_runtime;
using millrace::test::kFreeBytes;
using millrace::test::overlap;
using millrace::test::t_device;

#define ENTER(name) \
  if (const cudaError_t failed = g_runtime->enter(name); failed != cudaSuccess) return failed

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
  if (g_runtime->options.driver < 13000) return cudaErrorInsufficientDriver;
  ENTER("cudaGetDeviceCount");
  *count = g_runtime->options.devices;
  return *count > 0 ? cudaSuccess : cudaErrorNoDevice;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = g_runtime->options.driver;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  ENTER("cudaGetDevice");
  *device = t_device;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  ENTER("cudaSetDevice");
  if (device < 0 || device >= g_runtime->options.devices) return cudaErrorInvalidDevice;
  t_device = device;
  return cudaSuccess;
}
cudaError_t cudaGetLastError() { return cudaSuccess; }
const char* cudaGetErrorName(cudaError_t) { return "cudaErrorOfTheFake"; }
const char* cudaGetErrorString(cudaError_t) { return "the fake was told to fail"; }
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  ENTER("cudaMemGetInfo");
  *free = kFreeBytes;
  *total = size_t{8} << 30;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  ENTER("cudaDeviceGetStreamPriorityRange");
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int) {
  ENTER("cudaStreamCreateWithPriority");
  if (flags != cudaStreamNonBlocking) g_runtime->violation("a stream that waits for stream 0");
  *stream = g_runtime->make_stream(t_device);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const cudaError_t failed = g_runtime->enter("cudaStreamDestroy");  // frees it all the same
  if (!g_runtime->lives(stream, "cudaStreamDestroy")) return cudaErrorInvalidResourceHandle;
  std::unique_ptr<CUstream_st> ended;  // runs what it has, outside the lock
  {
    const std::scoped_lock lock(g_runtime->mutex);
    ended = std::move(g_runtime->streams.at(stream));
    g_runtime->streams.erase(stream);
  }
  return failed;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  ENTER("cudaStreamWaitEvent");
  if (!g_runtime->lives(stream, "cudaStreamWaitEvent")) return cudaErrorInvalidResourceHandle;
  if (!g_runtime->lives(event, "cudaStreamWaitEvent")) return cudaErrorInvalidResourceHandle;
  const auto point = g_runtime->point(event, "cudaStreamWaitEvent");
  if (!point || g_runtime->deaf(stream)) return cudaSuccess;
  {
    const std::scoped_lock lock(g_runtime->mutex);
    g_runtime->order.wait(stream->number, point->clock());
  }
  stream->put({[point] { point->wait(); }, true});
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  ENTER("cudaStreamSynchronize");
  g_runtime->blocks("cudaStreamSynchronize");
  if (!g_runtime->lives(stream, "cudaStreamSynchronize")) return cudaErrorInvalidResourceHandle;
  const auto point = g_runtime->point_after(stream);
  stream->put({[point] { point->reach(); }, true});
  point->wait();
  g_runtime->observe(*point);
  return g_runtime->lost ? g_runtime->options.error : cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  ENTER("cudaEventCreateWithFlags");
  *event = new CUevent_st{flags, t_device, nullptr};
  const std::scoped_lock lock(g_runtime->mutex);
  g_runtime->events.insert(*event);
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  const cudaError_t failed = g_runtime->enter("cudaEventDestroy");
  if (!g_runtime->lives(event, "cudaEventDestroy")) return cudaErrorInvalidResourceHandle;
  const std::scoped_lock lock(g_runtime->mutex);
  g_runtime->events.erase(event);
  delete event;
  return failed;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  ENTER("cudaEventRecord");
  if (!g_runtime->lives(stream, "cudaEventRecord")) return cudaErrorInvalidResourceHandle;
  if (!g_runtime->lives(event, "cudaEventRecord")) return cudaErrorInvalidResourceHandle;
  if (event->device != stream->device) return cudaErrorInvalidResourceHandle;
  const auto point = g_runtime->point_after(stream);
  {
    const std::scoped_lock lock(g_runtime->mutex);
    event->point = point;
  }
  stream->put({[point] { point->reach(); }, true});
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  ENTER("cudaEventQuery");
  if (!g_runtime->lives(event, "cudaEventQuery")) return cudaErrorInvalidResourceHandle;
  const auto point = g_runtime->point(event, "cudaEventQuery");
  if (!point || !point->reached()) return cudaErrorNotReady;
  if (g_runtime->lost) return g_runtime->options.error;  // maybe only since this call began
  g_runtime->observe(*point);
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  ENTER("cudaEventSynchronize");
  g_runtime->blocks("cudaEventSynchronize");
  if (!g_runtime->lives(event, "cudaEventSynchronize")) return cudaErrorInvalidResourceHandle;
  if ((event->flags & cudaEventBlockingSync) == 0) g_runtime->violation("an event that spins");
  if (const auto point = g_runtime->point(event, "cudaEventSynchronize")) {
    point->wait();
    g_runtime->observe(*point);
  }
  return g_runtime->lost ? g_runtime->options.error : cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t first, cudaEvent_t last) {
  ENTER("cudaEventElapsedTime");
  for (const cudaEvent_t event : {first, last}) {
    if (!g_runtime->lives(event, "cudaEventElapsedTime")) return cudaErrorInvalidResourceHandle;
    if ((event->flags & cudaEventDisableTiming) != 0) return cudaErrorInvalidResourceHandle;
    const auto point = g_runtime->point(event, "cudaEventElapsedTime");
    if (!point || !point->reached()) return cudaErrorNotReady;
  }
  const auto time = [](cudaEvent_t event) {
    return g_runtime->point(event, "cudaEventElapsedTime")->time();
  };
  *ms = std::chrono::duration<float, std::milli>(time(last) - time(first)).count();
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t size, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  ENTER("cudaMemcpyAsync");
  if (!g_runtime->lives(stream, "cudaMemcpyAsync")) return cudaErrorInvalidResourceHandle;
  const bool to_host = kind == cudaMemcpyDeviceToHost;
  const std::span target(static_cast<std::byte*>(to), size);
  const std::span source(static_cast<const std::byte*>(from), size);
  std::uint64_t id = 0;
  {
    const std::scoped_lock lock(g_runtime->mutex);
    id = ++g_runtime->copy_ids;
  }
  g_runtime->use(stream, "cudaMemcpyAsync", {{to_host ? source : target, !to_host}});
  if (to_host) {
    g_runtime->begin(id, {target, source, true});
    std::fill(target.begin(), target.end(), millrace::test::kRubbish);
  } else {
    g_runtime->begin(id, {source, target, false});
  }
  stream->put({[target, source, id, runtime = g_runtime] {
                 runtime->overtakes_packs(id);
                 if (!runtime->lost) std::memcpy(target.data(), source.data(), source.size());
                 runtime->copy(target, source);
                 runtime->end(id);
               },
               true});
  return cudaSuccess;
}
cudaError_t cudaHostRegister(void* memory, size_t size, unsigned) {
  ENTER("cudaHostRegister");
  if (size == 0) return cudaErrorInvalidValue;
  const std::span pin(static_cast<const std::byte*>(memory), size);
  const std::scoped_lock lock(g_runtime->mutex);
  for (const auto& other : g_runtime->pins) {
    if (overlap(pin, other)) return cudaErrorHostMemoryAlreadyRegistered;
  }
  g_runtime->pins.push_back(pin);
  return cudaSuccess;
}
cudaError_t cudaHostUnregister(void* memory) {
  const cudaError_t failed = g_runtime->enter("cudaHostUnregister");
  const std::scoped_lock lock(g_runtime->mutex);
  const auto found =
      std::find_if(g_runtime->pins.begin(), g_runtime->pins.end(),
                   [&](const auto& pin) { return pin.data() == static_cast<std::byte*>(memory); });
  if (found == g_runtime->pins.end()) {
    g_runtime->note("cudaHostUnregister: memory that is not pinned");
    return cudaErrorHostMemoryNotRegistered;
  }
  g_runtime->give_back(*found, "pinned memory is");
  g_runtime->pins.erase(found);
  return failed;
}

cudaError_t cudaMalloc(void** memory, size_t size) {
  ENTER("cudaMalloc");
  g_runtime->blocks("cudaMalloc");
  if (size > kFreeBytes) return cudaErrorMemoryAllocation;
  *memory = g_runtime->allocate(size);
  return cudaSuccess;
}
cudaError_t cudaFree(void* memory) {
  const cudaError_t failed = g_runtime->enter("cudaFree");  // frees it all the same
  g_runtime->blocks("cudaFree");
  if (g_runtime->free(static_cast<std::byte*>(memory))) return failed;
  g_runtime->violation("cudaFree: memory that was not allocated");
  return cudaErrorInvalidValue;
}

}  // extern "C"

int millrace::launch_pack(const PackPiece* table, std::size_t pieces, std::byte* to,
                          cudaStream_t stream) {
  ENTER("launch_pack");
  if (!g_runtime->lives(stream, "launch_pack")) return cudaErrorInvalidResourceHandle;
  if (stream->device != t_device) return cudaErrorInvalidResourceHandle;
  const std::span list(table, pieces);
  const std::uint64_t id = g_runtime->begin_pack(std::as_bytes(list), to);
  const std::span<const std::byte> buffer = g_runtime->rest_of_allocation(to);
  g_runtime->use(stream, "a pack", {{std::as_bytes(list), false}, {buffer, true}});
  stream->put({[id, list, to, runtime = g_runtime] { runtime->run_pack(id, list, to); }, true});
  return cudaSuccess;
}
