// Small valid .pth files, as bytes.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "millrace/io/crc32.h"
#include "millrace/io/pickle_value.h"
#include "millrace/io/pickler.h"
#include "millrace/io/pth_layout.h"
#include "millrace/io/state_record.h"
#include "tests/support/images.h"

namespace millrace::test {

inline constexpr std::uint64_t kWeightBytes = 4000;

inline CheckpointIdentity identity_of(std::uint64_t generation, std::int64_t iter) {
  CheckpointIdentity identity;
  identity.save_id = new_save_id();
  identity.generation = generation;
  identity.reason = "interval";
  identity.iter = iter;
  return identity;
}

// One tensor of floats, 10 x 100 of them unless `bytes` says otherwise. Without an identity the
// file has no record, like MMEngine's own.
inline std::vector<std::byte> checkpoint_file(const std::optional<CheckpointIdentity>& identity,
                                              std::uint32_t seed = 1,
                                              std::uint64_t bytes = kWeightBytes) {
  const std::vector<std::byte> weight = pattern(bytes, seed);
  const auto rows = static_cast<std::int64_t>(bytes / 400);
  pickle::Value state = pickle::Value::ordered_dict();
  state.set("weight", pickle::make_tensor({.storage_key = "0",
                                           .dtype = DType::kFloat32,
                                           .storage_numel = rows * 100,
                                           .offset = 0,
                                           .sizes = {rows, 100},
                                           .strides = {100, 1}}));
  pickle::Value root = pickle::Value::dict();
  root.set("state_dict", std::move(state));

  std::vector<PthLayout::NamedBytes> extra;
  if (identity) extra.push_back({"millrace/state", encode_state_record({*identity, {}})});
  const PthLayout layout(std::array{bytes});
  const std::array crcs = {crc32(weight)};
  const std::vector<std::byte> tail = layout.make_tail(crcs, pickle::pickle(root), extra);

  std::vector<std::byte> file(layout.storages_end());
  const auto room = [&](std::uint64_t first, std::uint64_t last) {
    return std::span(file).subspan(first, last - first);
  };
  layout.write_header(0, room(layout.header_offset(0), layout.data_offset(0)));
  layout.write_descriptor(0, crcs[0], room(layout.data_end(0), layout.end_offset(0)));
  std::copy(weight.begin(), weight.end(),
            file.begin() + static_cast<std::ptrdiff_t>(layout.data_offset(0)));
  file.insert(file.end(), tail.begin(), tail.end());
  return file;
}

}  // namespace millrace::test
