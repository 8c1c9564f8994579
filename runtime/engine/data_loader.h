// The loader: samples of a data set in the sampler's order, gathered into batches.
//
// Its position is the number of batches consumed in the current epoch and is saved in every
// checkpoint, so a resumed run reads the very next batch without replaying the ones before.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "millrace/runtime/device/batch_memory.h"
#include "millrace/runtime/engine/batch.h"
#include "millrace/runtime/engine/dataset.h"
#include "millrace/runtime/engine/sampler.h"

namespace millrace {

struct LoaderOptions {
  std::int64_t batch_size = 1;
  bool shuffle = false;
  bool drop_last = false;
  std::optional<std::uint64_t> seed = {};  // default: the run's seed
};

struct LoaderPosition {
  std::int64_t epoch = 0;  // the sampler's
  std::int64_t batch = 0;  // consumed in that epoch
  bool operator==(const LoaderPosition&) const = default;
};

class DataLoader {
 public:
  // Throws ConfigError for an empty data set or a batch size below 1.
  DataLoader(std::shared_ptr<const Dataset> dataset, LoaderOptions options);

  std::int64_t batches() const noexcept;  // in one epoch
  std::int64_t samples() const noexcept;  // of the data set
  const LoaderOptions& options() const noexcept { return options_; }
  Sampler& sampler() noexcept { return sampler_; }

  // The next batch of this epoch, or null at its end; in `memory`, or in the loader's own. Valid
  // until the next call. Throws what `memory` throws, and is then still before that batch.
  const Batch* next(BatchMemory* memory = nullptr);
  void rewind() noexcept { batch_ = 0; }

  LoaderPosition position() const noexcept { return {sampler_.epoch(), batch_}; }
  // Throws ConfigError when the position lies beyond the epoch's end.
  void seek(LoaderPosition position);

 private:
  std::span<std::byte* const> own_room();

  std::shared_ptr<const Dataset> dataset_;
  LoaderOptions options_;
  Sampler sampler_;
  Batch current_;
  std::vector<std::vector<std::byte>> own_;  // by field, where no memory was given
  // Of next(), one per field; kept for their memory.
  std::vector<std::size_t> field_bytes_;
  std::vector<std::byte*> cursors_;
  std::int64_t batch_ = 0;
};

// What users write: loader(digits, {.batch_size = 64, .shuffle = true}).
std::unique_ptr<DataLoader> loader(std::shared_ptr<const Dataset> dataset,
                                   LoaderOptions options = {});

}  // namespace millrace
