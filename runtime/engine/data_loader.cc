#include "millrace/runtime/engine/data_loader.h"

#include <algorithm>
#include <string>
#include <utility>

#include "millrace/runtime/async/error.h"

namespace millrace {

DataLoader::DataLoader(std::shared_ptr<const Dataset> dataset, LoaderOptions options)
    : dataset_(std::move(dataset)),
      options_(options),
      sampler_(dataset_->size(), options.shuffle, options.seed.value_or(0)) {
  if (options_.batch_size < 1) {
    throw ConfigError("loader.batch_size",
                      "must be at least 1, got " + std::to_string(options_.batch_size));
  }
  if (batches() == 0) {
    throw ConfigError("loader", "the data set has " + std::to_string(dataset_->size()) +
                                    " samples, not one batch of " +
                                    std::to_string(options_.batch_size));
  }
  for (const FieldSpec& spec : dataset_->fields()) {
    Batch::Field field;
    field.dtype = spec.dtype;
    field.sizes.push_back(options_.batch_size);
    field.sizes.insert(field.sizes.end(), spec.sizes.begin(), spec.sizes.end());
    current_.fields().push_back(std::move(field));
  }
}

std::int64_t DataLoader::samples() const noexcept { return dataset_->size(); }

std::int64_t DataLoader::batches() const noexcept {
  const std::int64_t round_up = options_.drop_last ? 0 : options_.batch_size - 1;
  return (dataset_->size() + round_up) / options_.batch_size;
}

std::span<std::byte* const> DataLoader::own_room() {
  own_.resize(field_bytes_.size());
  for (std::size_t f = 0; f < own_.size(); ++f) {
    own_[f].resize(field_bytes_[f]);
    cursors_[f] = own_[f].data();
  }
  return cursors_;
}

const Batch* DataLoader::next(BatchMemory* memory) {
  if (batch_ >= batches()) return nullptr;
  const std::int64_t first = batch_ * options_.batch_size;
  const std::int64_t count = std::min(options_.batch_size, dataset_->size() - first);
  const auto specs = dataset_->fields();
  field_bytes_.clear();
  for (const FieldSpec& spec : specs) {
    field_bytes_.push_back(static_cast<std::size_t>(count) * spec.bytes_per_sample());
  }
  cursors_.resize(specs.size());
  std::span<std::byte* const> room;
  if (memory != nullptr) room = memory->room(field_bytes_);
  if (room.empty()) room = own_room();
  for (std::size_t f = 0; f < specs.size(); ++f) {
    cursors_[f] = room[f];
    current_.fields()[f].bytes = {room[f], field_bytes_[f]};
  }
  for (const std::int64_t index :
       sampler_.order().subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count))) {
    dataset_->read(index, cursors_);
    for (std::size_t f = 0; f < specs.size(); ++f) cursors_[f] += specs[f].bytes_per_sample();
  }
  current_.resize(count);
  ++batch_;
  return &current_;
}

void DataLoader::seek(LoaderPosition position) {
  if (position.batch < 0 || position.batch > batches()) {
    throw ConfigError("resume",
                      "the checkpoint was saved after batch " + std::to_string(position.batch) +
                          " of an epoch, but this run's epoch has " + std::to_string(batches()) +
                          " batches: use the data set and batch size it was saved with");
  }
  sampler_.set_epoch(position.epoch);
  batch_ = position.batch;
}

std::unique_ptr<DataLoader> loader(std::shared_ptr<const Dataset> dataset, LoaderOptions options) {
  return std::make_unique<DataLoader>(std::move(dataset), options);
}

}  // namespace millrace
