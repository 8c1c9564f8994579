#include "tests/support/fake_strategy.h"

#include <cstring>
#include <utility>

#include "millrace/io/pth_reader.h"
#include "millrace/runtime/async/error.h"
#include "millrace/runtime/device/device_error.h"
#include "millrace/runtime/engine/checkpoint_file.h"
#include "millrace/runtime/staging/state_gate.h"

namespace millrace::test {
namespace {

constexpr std::size_t kEmbed = 0, kBody = 1, kFrozen = 2, kMean = 3;

pickle::Value leaf(std::size_t storage, std::size_t floats) {
  pickle::TensorRef tensor;
  tensor.storage_key = std::to_string(storage);
  tensor.storage_numel = static_cast<std::int64_t>(floats);
  tensor.sizes = {tensor.storage_numel};
  tensor.strides = {1};
  return pickle::make_tensor(tensor);
}

// The floats of a leaf of the file, or nothing when it is no tensor of `count` floats.
std::optional<std::vector<float>> read_leaf(const CheckpointFile& file, const pickle::Value* value,
                                            std::size_t count) {
  const auto tensor = value != nullptr ? pickle::as_tensor(*value) : std::nullopt;
  if (!tensor || tensor->numel() != static_cast<std::int64_t>(count)) return std::nullopt;
  std::vector<float> floats(count);
  const auto bytes = file.storage(*tensor);
  std::memcpy(floats.data(), bytes.data(), count * sizeof(float));
  return floats;
}

}  // namespace

FakeStrategy::FakeStrategy(FakeStrategyOptions options) : options_(std::move(options)) {
  tensors_ = {{{"embed.weight", "head.weight"}, random_floats(), random_floats()},
              {{options_.body + ".weight"}, random_floats(), random_floats()},
              {{"frozen.weight"}, random_floats(), nullptr},
              {{"norm.running_mean"}, random_floats(), nullptr}};
  loss_.lateness = options_.loss_lateness;
  if (options_.stream != nullptr) {
    steps_ = std::make_unique<StepStreams>(*options_.stream);
    device_loss_.steps = steps_.get();
  }
}

FakeStrategy::~FakeStrategy() {
  try {
    finish();
  } catch (const DeviceError&) {  // then no kernel runs any more
  }
}

void FakeStrategy::finish() const {
  if (options_.stream != nullptr) options_.stream->synchronize();
}

// xorshift64*, as a float in [0, 1).
float FakeStrategy::draw() {
  random_ ^= random_ >> 12;
  random_ ^= random_ << 25;
  random_ ^= random_ >> 27;
  return static_cast<float>((random_ * 0x2545F4914F6CDD1DULL) >> 40) / static_cast<float>(1 << 24);
}

FakeStrategy::Floats FakeStrategy::random_floats() {
  auto floats = std::make_shared<std::vector<float>>(options_.floats);
  for (float& value : *floats) value = draw();
  return floats;
}

void FakeStrategy::prepare(std::uint64_t seed, StateGate& gate) {
  random_ ^= seed * 0x9E3779B97F4A7C15ULL;
  gate_ = &gate;
}

std::span<const float> FakeStrategy::bring(const Batch& batch) {
  const auto inputs = batch.fields()[0].view().as<float>();
  if (!steps_) return inputs;
  std::vector<std::span<const std::byte>> fields;
  for (const Batch::Field& field : batch.fields()) fields.emplace_back(field.bytes);
  const std::byte* const there = steps_->bring(fields).front();
  return {reinterpret_cast<const float*>(there), inputs.size()};
}

StepOutput FakeStrategy::forward_backward(const Batch& batch) {
  on_forward();
  compute([this, inputs = bring(batch), noise = draw()] {
    float sum = noise;
    for (const float value : inputs) sum = sum * 0.75f + value;
    gradient_ = sum * 0.01f + (*tensors_[kEmbed].values)[0] * (*tensors_[kBody].values)[1] * 0.1f;
    for (float& mean : *tensors_[kMean].values) mean = 0.9f * mean + 0.1f * sum;
    step_loss_ = gradient_ + (*tensors_[kBody].values)[0] + (*tensors_[kMean].values)[0];
  });
  if (steps_) {
    const auto* const loss = reinterpret_cast<const std::byte*>(&step_loss_);
    scalar_ = {"loss", &device_loss_, steps_->send(loss)};
    steps_->used();
  } else {
    scalar_.ticket = loss_.steps;
    loss_.add(step_loss_);
  }
  return {{&scalar_, 1}, true};
}

void FakeStrategy::optimizer_step() {
  on_step();
  std::size_t storage = 0;
  for (Tensor& tensor : tensors_) {
    if (!tensor.momentum) continue;
    gate_->writable(std::as_bytes(std::span(*tensor.values)));
    on_write(storage++);
    gate_->writable(std::as_bytes(std::span(*tensor.momentum)));
    on_write(storage++);
    compute([this, &values = *tensor.values, &momentum = *tensor.momentum, rate = rate_] {
      for (std::size_t i = 0; i < values.size(); ++i) {
        momentum[i] = 0.5f * momentum[i] + gradient_ + 0.01f * values[i];
        values[i] -= static_cast<float>(rate) * momentum[i];
      }
    });
  }
  if (steps_) steps_->stepped();
}

// Two classes; the scores depend on the weights and on the first feature.
void FakeStrategy::predict(const Batch& batch) {
  const auto samples = static_cast<std::size_t>(batch.size());
  score_sizes_ = {batch.size(), 2};
  scores_.resize(2 * samples);
  compute([this, inputs = bring(batch), samples] {
    for (std::size_t i = 0; i < samples; ++i) {
      scores_[2 * i] = (*tensors_[kBody].values)[0];
      scores_[2 * i + 1] = inputs[i * inputs.size() / samples];
    }
  });
  if (!steps_) return;
  const auto bytes = std::as_bytes(std::span(scores_));
  steps_->fetch(bytes.data(), bytes.size());
  steps_->used();
}

TensorView FakeStrategy::scores() {
  const auto bytes = steps_ ? steps_->received() : std::as_bytes(std::span(scores_));
  return {DType::kFloat32, score_sizes_, bytes};
}

CapturedState FakeStrategy::capture(bool with_optimizer) {
  CapturedState state;
  state.state_dict = pickle::Value::ordered_dict();
  pickle::set_attribute(state.state_dict, "_metadata", pickle::Value::ordered_dict());
  pickle::Value slots = pickle::Value::dict();
  pickle::Value trained = pickle::Value::list();
  auto handles = std::make_shared<std::vector<Floats>>();
  const auto add = [&](const Floats& floats, Mutation mutation) {
    handles->push_back(floats);
    state.storages.push_back({.bytes = std::as_bytes(std::span(*floats)),
                              .mutation = mutation,
                              .dtype = DType::kFloat32,
                              .on_device = options_.stream != nullptr});
    return leaf(state.storages.size() - 1, floats->size());
  };
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    const Tensor& tensor = tensors_[i];
    const auto mutation = i == kMean ? Mutation::kAnyTime : Mutation::kBehindGate;
    const pickle::Value values = add(tensor.values, mutation);
    for (const std::string& name : tensor.names) state.state_dict.set(name, values);
    if (!with_optimizer || !tensor.momentum) continue;
    pickle::Value slot = pickle::Value::dict();
    slot.set("momentum_buffer", add(tensor.momentum, Mutation::kBehindGate));
    slots.set(static_cast<std::int64_t>(i), std::move(slot));
    trained.append(static_cast<std::int64_t>(i));
  }
  if (with_optimizer) {
    pickle::Value group = pickle::Value::dict();
    group.set("lr", rate_);
    group.set("params", std::move(trained));
    state.optimizer = pickle::Value::dict();
    state.optimizer.set("state", std::move(slots));
    state.optimizer.set("param_groups", pickle::Value::list({std::move(group)}));
  }
  state.handles = std::move(handles);
  state.watch = make_watch();
  return state;
}

std::string FakeStrategy::save_rng() const {
  return {reinterpret_cast<const char*>(&random_), sizeof random_};
}

void FakeStrategy::load_rng(std::string_view bytes) {
  if (bytes.size() != sizeof random_) throw Error("fake generator: wrong size");
  std::memcpy(&random_, bytes.data(), sizeof random_);
}

void FakeStrategy::write(const Floats& target, const std::vector<float>& source) {
  if (gate_ != nullptr) gate_->writable(std::as_bytes(std::span(*target)));
  compute([target, source] { *target = source; });
  finish();
}

LoadReport FakeStrategy::load_model(const CheckpointFile& file, const LoadOptions& options) {
  std::vector<std::pair<Floats, std::vector<float>>> found;
  LoadReport report;
  for (const Tensor& tensor : tensors_) {
    for (const std::string& name : tensor.names) {
      const pickle::Value* value = file.state_dict().find(name);
      if (auto floats = read_leaf(file, value, tensor.values->size())) {
        found.emplace_back(tensor.values, std::move(*floats));
      } else {
        report.warnings.push_back(file.path() + ": does not fit: " + name);
      }
    }
  }
  if (options.strict && !report.warnings.empty()) {
    throw CheckpointError(file.path(), "is of another model: " + report.warnings.front());
  }
  if (found.empty()) throw CheckpointError(file.path(), "none of its tensors fits this model");
  for (const auto& [target, source] : found) write(target, source);
  return report;
}

void FakeStrategy::load_optimizer(const CheckpointFile& file) {
  const pickle::Value* optimizer = file.root().find("optimizer");
  const pickle::Value* slots = optimizer != nullptr ? optimizer->find("state") : nullptr;
  const pickle::Value* groups = optimizer != nullptr ? optimizer->find("param_groups") : nullptr;
  const auto* list = groups != nullptr ? groups->as_sequence() : nullptr;
  const pickle::Value* rate =
      list != nullptr && !list->empty() ? list->front().find("lr") : nullptr;
  if (slots == nullptr || rate == nullptr) throw CheckpointError(file.path(), "no optimizer");
  std::vector<std::pair<Floats, std::vector<float>>> found;
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    if (!tensors_[i].momentum) continue;
    const pickle::Value* slot = slots->find(static_cast<std::int64_t>(i));
    const pickle::Value* value = slot != nullptr ? slot->find("momentum_buffer") : nullptr;
    auto floats = read_leaf(file, value, tensors_[i].momentum->size());
    if (!floats) throw CheckpointError(file.path(), "its optimizer state does not fit");
    found.emplace_back(tensors_[i].momentum, std::move(*floats));
  }
  for (const auto& [target, source] : found) write(target, source);
  rate_ = rate->as_double().value_or(0);
}

std::vector<std::vector<std::byte>> FakeStrategy::state() const {
  finish();
  std::vector<std::vector<std::byte>> state;
  const auto add = [&](std::span<const std::byte> bytes) {
    state.emplace_back(bytes.begin(), bytes.end());
  };
  for (const Tensor& tensor : tensors_) {
    add(std::as_bytes(std::span(*tensor.values)));
    if (tensor.momentum) add(std::as_bytes(std::span(*tensor.momentum)));
  }
  add(std::as_bytes(std::span(&random_, 1)));
  add(std::as_bytes(std::span(&rate_, 1)));
  return state;
}

std::vector<std::vector<std::byte>> state_in(const Storage& storage, std::string_view name) {
  const CheckpointFile file = CheckpointFile::read(storage, name);
  const auto reader = PthReader::open(storage.open(name));
  std::vector<std::vector<std::byte>> state;
  for (std::size_t i = 0; const auto size = reader.value().storage_size(std::to_string(i)); ++i) {
    std::vector<std::byte>& bytes = state.emplace_back(*size);
    const auto read = reader.value().read_storage(std::to_string(i), bytes);
    if (!read) throw CheckpointError(file.path(), read.fault().text());
  }
  const auto add = [&](std::span<const std::byte> bytes) {
    state.emplace_back(bytes.begin(), bytes.end());
  };
  const std::string* random = file.section("rng");
  if (random != nullptr) add(std::as_bytes(std::span(*random)));
  if (const pickle::Value* optimizer = file.root().find("optimizer")) {
    const pickle::Value* rate = optimizer->find("param_groups")->as_sequence()->front().find("lr");
    const double value = rate->as_double().value();
    add(std::as_bytes(std::span(&value, 1)));
  }
  return state;
}

}  // namespace millrace::test
