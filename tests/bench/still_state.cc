#include "tests/bench/still_state.h"

#include <string>

#include "tests/bench/pth_source.h"

namespace millrace::bench {
namespace {

constexpr std::size_t kStorage = std::size_t{8} << 20;

class NoLoss final : public ScalarSource {
 public:
  std::optional<double> try_read(std::uint32_t) const override { return 0.5; }
};

class StillState final : public Strategy {
 public:
  explicit StillState(std::size_t mib) : weights_(random_bytes(mib << 20)) {}

  void prepare(std::uint64_t, StateGate&) override {}
  StepOutput forward_backward(const Batch&) override { return {{&scalar_, 1}, true}; }
  void optimizer_step() override {}
  void predict(const Batch&) override {}
  TensorView scores() override { return {}; }
  std::span<double> learning_rates() override { return {&rate_, 1}; }
  CapturedState capture(bool) override {
    CapturedState state;
    state.state_dict = pickle::Value::ordered_dict();
    state.optimizer = pickle::Value::dict();
    const std::span<const std::byte> all(weights_);
    for (std::size_t at = 0; at < all.size(); at += kStorage) {
      const auto bytes = all.subspan(at, std::min(kStorage, all.size() - at));
      const auto count = static_cast<std::int64_t>(bytes.size() / 4);
      const std::string key = std::to_string(state.storages.size());
      state.state_dict.set("weight" + key, pickle::make_tensor({.storage_key = key,
                                                                .dtype = DType::kFloat32,
                                                                .storage_numel = count,
                                                                .offset = 0,
                                                                .sizes = {count},
                                                                .strides = {1}}));
      state.storages.push_back({bytes});
    }
    return state;
  }
  std::string save_rng() const override { return {}; }
  void load_rng(std::string_view) override {}
  LoadReport load_model(const CheckpointFile&, const LoadOptions&) override { return {}; }
  void load_optimizer(const CheckpointFile&) override {}
  bool uses_every_core() const override { return false; }

 private:
  std::vector<std::byte> weights_;
  NoLoss loss_;
  Scalar scalar_{"loss", &loss_, 0};
  double rate_ = 0.1;
};

}  // namespace

std::unique_ptr<Strategy> still_state(std::size_t mib) { return std::make_unique<StillState>(mib); }

std::shared_ptr<const Dataset> numbers(std::size_t count) {
  const std::vector<float> inputs(count);
  const std::vector<std::int64_t> labels(count);
  std::vector<InMemoryDataset::Column> columns;
  columns.push_back(InMemoryDataset::column<float>(DType::kFloat32, {}, inputs));
  columns.push_back(InMemoryDataset::column<std::int64_t>(DType::kInt64, {}, labels));
  return std::make_shared<InMemoryDataset>(std::move(columns));
}

}  // namespace millrace::bench
