// Reads a Python pickle of protocols 2 to 5 (any protocol, in binary operations) into an inert
// tree. Nothing is looked up, imported or called: what Python would run becomes a Call node. The
// text operations of protocols 0 and 1, which torch never wrote, are refused by name.
//
// What is folded, because it is data and not a call: `_codecs.encode(text, 'latin1')` and empty
// `bytes()` become Bytes, `set([...])` becomes Set, and `OrderedDict([[k, v], ...])` (Python 2)
// gets its pairs; ('module', class, file, source), a persistent id of legacy files, becomes the
// class. Objects of protocols 4 and 5 come back as calls that protocol 2 can write: bytearray,
// frozenset, copyreg.__newobj_ex__ for NEWOBJ_EX, and getattr for a dotted name.
//
// Bounds. Time and memory are proportional to the input (about 500 bytes of memory for each byte of
// a hostile one): a length is compared with the bytes that are left before anything is allocated,
// the memo takes no more room than it has entries, and copies of strings out of the memo, which a
// two-byte opcode can ask for, may add up to 64 times the input and no more. Depth and cycles are
// checked on the finished nodes; a tree that contains itself is refused, as shared_ptr could never
// free it.
#pragma once

#include <cstddef>
#include <span>

#include "millrace/io/pickle_value.h"
#include "millrace/runtime/async/error.h"

namespace millrace::pickle {

struct UnpickleLimits {
  std::size_t max_values = 50'000'000;  // values made, garbage included
  std::size_t max_depth = 1'000;        // nodes within nodes
};

// The value of the pickle at the start of `bytes`. `consumed`, when given, receives the bytes up to
// and with its STOP, since legacy torch files hold several; without it nothing may follow. A pickle
// that ends early is Kind::truncated; one over a limit Kind::limit.
Result<Value> unpickle(std::span<const std::byte> bytes, const UnpickleLimits& limits = {},
                       std::size_t* consumed = nullptr);

}  // namespace millrace::pickle
