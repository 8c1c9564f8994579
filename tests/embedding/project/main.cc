// A service that fits a line to points and serves requests meanwhile, all on one io_context. Run
// as: service WORK_DIR EPOCHS. Run again, it continues after the last checkpoint.
#include <millrace/events/checkpoint_events.h>
#include <millrace/events/event_bus.h>
#include <millrace/hooks/default_hooks.h>
#include <millrace/io/local_storage.h>
#include <millrace/runtime/engine/checkpoint_file.h>
#include <millrace/runtime/engine/runner.h>
#include <millrace/runtime/staging/state_gate.h>

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/io_context.hpp>
#include <asio/post.hpp>
#include <asio/use_awaitable.hpp>
#include <cstdlib>
#include <cstring>
#include <iostream>

namespace mr = millrace;

// y = weight * x, by gradient descent.
class Line final : public mr::Strategy {
 public:
  void prepare(std::uint64_t, mr::StateGate& gate) override { gate_ = &gate; }
  mr::StepOutput forward_backward(const mr::Batch& batch) override {
    const auto x = batch.fields()[0].view().as<float>(), y = batch.fields()[1].view().as<float>();
    ++steps_;
    gradient_ = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      gradient_ += (weight_ * x[i] - y[i]) * x[i] / static_cast<float>(x.size());
    }
    return {};
  }
  void optimizer_step() override { set(weight_ - static_cast<float>(rate_) * gradient_); }
  void predict(const mr::Batch&) override {}
  mr::TensorView scores() override { return {}; }
  std::span<double> learning_rates() override { return {&rate_, 1}; }

  mr::CapturedState capture(bool) override {
    mr::pickle::TensorRef tensor;
    tensor.storage_key = "0";
    tensor.storage_numel = 1;
    tensor.sizes = tensor.strides = {1};
    mr::CapturedState state;
    state.state_dict = mr::pickle::Value::ordered_dict();
    state.state_dict.set("weight", mr::pickle::make_tensor(tensor));
    state.optimizer = mr::pickle::Value::dict();
    state.storages.push_back({.bytes = std::as_bytes(std::span(&weight_, 1))});
    return state;
  }
  std::string save_rng() const override { return {}; }
  void load_rng(std::string_view) override {}
  mr::LoadReport load_model(const mr::CheckpointFile& file, const mr::LoadOptions&) override {
    const auto* const value = file.state_dict().find("weight");
    float weight = 0;
    std::memcpy(&weight, file.storage(mr::pickle::as_tensor(*value).value()).data(), sizeof weight);
    set(weight);
    return {};
  }
  void load_optimizer(const mr::CheckpointFile&) override {}
  bool uses_every_core() const override { return false; }

  float weight() const { return weight_; }
  int steps() const { return steps_; }

 private:
  void set(float weight) {
    gate_->writable(std::as_bytes(std::span(&weight_, 1)));
    weight_ = weight;
  }

  mr::StateGate* gate_ = nullptr;
  float weight_ = 0, gradient_ = 0;
  double rate_ = 0.125;
  int steps_ = 0;
};

std::unique_ptr<mr::DataLoader> points() {
  const std::vector<float> x{1, -1, 2, -2}, y{3, -3, 6, -6};
  using Data = mr::InMemoryDataset;
  std::vector<Data::Column> columns;
  columns.push_back(Data::column<float>(mr::DType::kFloat32, {1}, x));
  columns.push_back(Data::column<float>(mr::DType::kFloat32, {1}, y));
  return mr::loader(std::make_shared<Data>(std::move(columns)), {.batch_size = 2});
}

struct Service {
  bool training = true;
  std::int64_t requests = 0;
  std::exception_ptr error;
};

mr::Task<> train(mr::Runner* runner, Service* service) {
  try {
    co_await runner->train();
  } catch (...) {
    service->error = std::current_exception();
  }
  service->training = false;
}

mr::Task<> serve(Service* service) {
  while (service->training) {
    ++service->requests;
    co_await asio::post(asio::use_awaitable);
  }
}

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  mr::Parts parts;
  parts.strategy = std::make_unique<Line>();
  parts.train = points();
  parts.hooks = mr::default_hooks();
  const auto& line = static_cast<const Line&>(*parts.strategy);
  mr::RunOptions options{.work_dir = argv[1], .max_epochs = std::atoi(argv[2])};
  options.resume = mr::Resume::automatic();
  options.log_console = false;
  mr::Runner runner(options, std::move(parts));
  std::string newest;
  const auto note = [&newest](const mr::CheckpointCommitted& event) { newest = event.row.name; };
  const mr::Subscription noted = runner.bus().subscribe(
      mr::inline_subscriber<mr::CheckpointCommitted>("service", mr::Priority::kNormal, note));

  Service service;
  asio::io_context context(1);
  asio::co_spawn(context, train(&runner, &service), asio::detached);
  asio::co_spawn(context, serve(&service), asio::detached);
  context.run();
  if (service.error) std::rethrow_exception(service.error);

  const auto file = mr::CheckpointFile::read(mr::LocalStorage(argv[1]), newest);
  std::cout << "newest " << newest << ", of iteration " << file.record()->identity.iter
            << ", after " << line.steps() << " steps: weight " << line.weight()
            << (service.requests > 1 ? ", served" : "") << "\n";
}
