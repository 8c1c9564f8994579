// The page around a timeline's data: the text before it and the text behind it. Between the two
// stands a JavaScript object {name, rows, spans}; a span is
// [row, kind, start in us, length in us, name, bytes, mode, error], of which a step has the first
// five, its number being the name.
#pragma once

namespace millrace {

extern const char* const kTimelineHead;
extern const char* const kTimelineTail;

}  // namespace millrace
