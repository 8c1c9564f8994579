#include "tests/support/fake_run.h"

namespace millrace::test {

std::shared_ptr<const Dataset> fake_dataset(std::int64_t samples) {
  std::vector<float> features;
  std::vector<std::int64_t> labels;
  for (std::int64_t i = 0; i < samples; ++i) {
    features.push_back(static_cast<float>(i % 7) * 0.25f);
    features.push_back(static_cast<float>(i) * 0.125f);
    labels.push_back(i % 2);
  }
  return std::make_shared<InMemoryDataset>(std::vector<InMemoryDataset::Column>{
      InMemoryDataset::column<float>(DType::kFloat32, {2}, features),
      InMemoryDataset::column<std::int64_t>(DType::kInt64, {}, labels)});
}

void LogLines::add(std::string_view line) {
  const std::lock_guard lock(mutex_);
  lines_.emplace_back(line);
}

std::vector<std::string> LogLines::all() const {
  const std::lock_guard lock(mutex_);
  return lines_;
}

std::vector<std::string> LogLines::with(std::string_view text) const {
  std::vector<std::string> found = all();
  std::erase_if(found, [&](const std::string& l) { return l.find(text) == std::string::npos; });
  return found;
}

namespace {

// Removes `name`, the word that follows it and the blanks behind that.
void remove_field(std::string& line, std::string_view name) {
  const std::size_t first = line.find(name);
  if (first == std::string::npos) return;
  const std::size_t word_end = line.find(' ', first + name.size());
  line.erase(first, line.find_first_not_of(' ', word_end) - first);
}

}  // namespace

std::vector<std::string> LogLines::numbers() const {
  std::vector<std::string> found = all();
  std::erase_if(found, [](const std::string& line) {
    return !line.starts_with("Epoch(") && !line.starts_with("Iter(");
  });
  for (std::string& line : found) {
    for (const std::string_view name : {"eta: ", "data_time: ", "time: "}) remove_field(line, name);
  }
  return found;
}

FakeRun::FakeRun(const std::filesystem::path& work_dir, FakeStrategyOptions model) {
  options.work_dir = work_dir;
  options.seed = 1;
  options.log_console = false;
  options.log_sink = [lines = log](LogLevel, std::string_view line) { lines->add(line); };
  auto fake = std::make_unique<FakeStrategy>(std::move(model));
  strategy = fake.get();
  parts.strategy = std::move(fake);
  parts.train = loader(fake_dataset(), {.batch_size = 3, .shuffle = true});
}

void FakeRun::validate() {
  parts.val = loader(fake_dataset(4), {.batch_size = 2});
  parts.metrics.push_back(std::make_unique<Accuracy>());
}

Runner& FakeRun::runner() {
  if (!runner_) runner_ = std::make_unique<Runner>(options, std::move(parts));
  return *runner_;
}

void FakeRun::train() {
  TrainContext context;
  context.run(runner().train());
}

}  // namespace millrace::test
