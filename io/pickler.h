// Writes a value tree as a Python pickle, protocol 2, with the opcodes that torch.load's safe mode
// (weights_only=True) knows.
//
// A node that occurs more than once is written once and fetched from the memo after that, so
// sharing survives; so are repeated strings and names, which only saves bytes. The bytes depend on
// the tree alone (content and sharing), never on addresses: equal trees give equal files.
//
// clang-format off
//
//   int          BININT1, BININT2, BININT, LONG1 (LONG4 above 255 bytes)
//   float        BINFLOAT
//   str          BINUNICODE; a string must be UTF-8, lone surrogates as Python writes them
//   bytes        _codecs.encode(text, 'latin1'), as Python does at protocol 2
//   list, dict   EMPTY_x MARK ... APPENDS / SETITEMS, also for one item
//   set          __builtin__.set([...])
//   Call         function args REDUCE (or NEWOBJ), then APPENDS, SETITEMS, BUILD where it has them
//
// clang-format on
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "millrace/io/pickle_value.h"

namespace millrace::pickle {

// Storage keys to write in place of those in the tree: a file laid out anew numbers its storages
// anew, and the tree, which others may share, need not be touched.
using StorageNames = std::map<std::string, std::string, std::less<>>;

// Throws Error for a tree nested deeper than 1,200 or with a cycle that Python could not write
// either (one through a tuple or a call's arguments).
std::vector<std::byte> pickle(const Value& value, const StorageNames& names = {});

}  // namespace millrace::pickle
