// The memory of a captured state: what staging copies, and what it has to know of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "millrace/io/dtype.h"

namespace millrace {

// When the bytes of a captured storage may change.
enum class Mutation : std::uint8_t {
  kBehindGate,  // only by writers that pass the gate: parameters, optimizer state
  kAnyTime,     // also by forward (BatchNorm statistics): copied at capture, on the train thread
};

struct CapturedStorage {
  std::span<const std::byte> bytes;  // live memory, not a copy
  Mutation mutation = Mutation::kBehindGate;
  std::optional<DType> dtype = {};  // of its elements, where all tensors in it agree
  // Above 0: neighbours of one number, a parameter and its optimizer states, are copied slice by
  // slice together, as the optimizer will write them.
  std::uint32_t group = 0;
  // The bytes are memory of the strategy's device: only its streams may touch them.
  bool on_device = false;
};

// Tells whether captured memory was written by someone who did not pass the gate.
class CaptureWatch {
 public:
  virtual ~CaptureWatch() = default;
  // Why the bytes of captured storage `i` cannot be trusted (one sentence, naming a tensor), or
  // empty while they can: a version counter moved since the capture, or the storage's memory did.
  // Any thread; called when the last byte of storage i has been copied, which is before a writer
  // that passes the gate may bump the counter.
  virtual std::string moved(std::size_t i) const = 0;
};

}  // namespace millrace
