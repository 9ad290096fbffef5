// SPDX-License-Identifier: Apache-2.0
// Dates and times as ISO 8601 text, for every value that 64 bits hold: years beyond 9999 and before
// 0 have a sign and at least six digits.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "arrow/type_fwd.h"

namespace millstream {

/// Appends days since 1970 as "2024-02-29".
void WriteIsoDate(std::int64_t days, std::string& out);
/// Appends a time of day with all digits of its unit: "23:59:59.500". REQUIRES: within a day.
void WriteIsoTime(std::int64_t value, arrow::TimeUnit::type unit, std::string& out);
/// Appends "2024-02-29T23:59:59.500", and "Z" if it is `zoned`: an instant, then, which is written
/// in UTC.
void WriteIsoTimestamp(
    std::int64_t value, arrow::TimeUnit::type unit, bool zoned, std::string& out
);

/// The inverses, which take any ISO 8601 form with a 'T' or a space between date and time. They
/// return nullopt if the text is something else, if it is finer than the unit or beyond its range.
std::optional<std::int64_t> ParseIsoDate(std::string_view text);
std::optional<std::int64_t> ParseIsoTime(std::string_view text, arrow::TimeUnit::type unit);
/// A `zoned` timestamp must state "Z" or an offset ("+02:00"), one without a zone must not, and may
/// be a date.
std::optional<std::int64_t> ParseIsoTimestamp(
    std::string_view text, arrow::TimeUnit::type unit, bool zoned
);

/// How many of the unit make a second.
std::int64_t UnitsPerSecond(arrow::TimeUnit::type unit);
inline constexpr std::int64_t kSecondsPerDay = 86'400;

}  // namespace millstream
