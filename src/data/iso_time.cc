// SPDX-License-Identifier: Apache-2.0
#include "data/iso_time.h"

#include <fmt/format.h>

#include <iterator>
#include <limits>

#include "arrow/type.h"

namespace millstream {
namespace {

using arrow::TimeUnit;
__extension__ using Int128 = __int128;

// The calendar repeats every 400 years, an era. Years are counted from March, so a leap day ends
// its year.
constexpr std::int64_t kDaysPerEra = 146'097;
constexpr std::int64_t kDaysFromYearZeroTo1970 = 719'468;

constexpr std::int64_t FloorDiv(std::int64_t a, std::int64_t b) {
  return a / b - ((a % b != 0 && a < 0) ? 1 : 0);
}

struct Date {
  std::int64_t year;
  std::int64_t month;
  std::int64_t day;
};

std::int64_t DaysOf(Date date) {
  const std::int64_t year = date.year - (date.month <= 2 ? 1 : 0);
  const std::int64_t era = FloorDiv(year, 400);
  const std::int64_t year_of_era = year - era * 400;
  const std::int64_t day_of_year = (153 * ((date.month + 9) % 12) + 2) / 5 + date.day - 1;
  return era * kDaysPerEra + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year -
         kDaysFromYearZeroTo1970;
}

Date DateOf(std::int64_t days) {
  days += kDaysFromYearZeroTo1970;
  const std::int64_t era = FloorDiv(days, kDaysPerEra);
  const std::int64_t day_of_era = days - era * kDaysPerEra;
  const std::int64_t year_of_era =
      (day_of_era - day_of_era / 1460 + day_of_era / 36'524 - day_of_era / 146'096) / 365;
  const std::int64_t day_of_year =
      day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
  const std::int64_t month_from_march = (5 * day_of_year + 2) / 153;
  const std::int64_t day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
  const std::int64_t month = month_from_march < 10 ? month_from_march + 3 : month_from_march - 9;
  return {era * 400 + year_of_era + (month <= 2 ? 1 : 0), month, day};
}

int FractionDigits(TimeUnit::type unit) {
  switch (unit) {
    case TimeUnit::SECOND:
      return 0;
    case TimeUnit::MILLI:
      return 3;
    case TimeUnit::MICRO:
      return 6;
    case TimeUnit::NANO:
      return 9;
  }
  return 0;
}

// Takes a text apart from its front. Whoever reads past a mismatch gets `ok() == false` in the end.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : rest_(text) {}

  bool Take(char c) {
    if (rest_.empty() || rest_.front() != c) return false;
    rest_.remove_prefix(1);
    return true;
  }
  void Expect(char c) { ok_ = Take(c) && ok_; }
  bool AtDigit() const { return !rest_.empty() && rest_.front() >= '0' && rest_.front() <= '9'; }
  bool AtEnd() const { return rest_.empty(); }
  int TakeDigit() {
    const int digit = rest_.front() - '0';
    rest_.remove_prefix(1);
    return digit;
  }
  // Between `least` and `most` digits, of a value in [low, high].
  std::int64_t Number(int least, int most, std::int64_t low, std::int64_t high) {
    std::int64_t value = 0;
    int digits = 0;
    for (; digits < most && AtDigit(); ++digits) value = value * 10 + TakeDigit();
    ok_ = ok_ && digits >= least && value >= low && value <= high;
    return value;
  }
  void Fail() { ok_ = false; }
  bool ok() const { return ok_; }

 private:
  std::string_view rest_;
  bool ok_ = true;
};

std::int64_t ScanDate(Scanner& scanner) {
  constexpr std::int64_t kYearMax = 400'000'000'000;  // beyond what seconds in 64 bits reach
  Date date{};
  if (scanner.Take('-')) {
    date.year = -scanner.Number(6, 12, 1, kYearMax);
  } else if (scanner.Take('+')) {
    date.year = scanner.Number(6, 12, 0, kYearMax);
  } else {
    date.year = scanner.Number(4, 4, 0, 9999);
  }
  scanner.Expect('-');
  date.month = scanner.Number(2, 2, 1, 12);
  scanner.Expect('-');
  date.day = scanner.Number(2, 2, 1, 31);
  const std::int64_t days = DaysOf(date);
  if (DateOf(days).day != date.day) scanner.Fail();  // 30 February
  return days;
}

// In the unit, since midnight.
std::int64_t ScanTime(Scanner& scanner, TimeUnit::type unit) {
  std::int64_t seconds = 3600 * scanner.Number(2, 2, 0, 23);
  scanner.Expect(':');
  seconds += 60 * scanner.Number(2, 2, 0, 59);
  if (!scanner.Take(':')) return seconds * UnitsPerSecond(unit);
  seconds += scanner.Number(2, 2, 0, 59);
  std::int64_t fraction = 0;
  if (scanner.Take('.')) {
    if (!scanner.AtDigit()) scanner.Fail();
    const int wanted = FractionDigits(unit);
    int digits = 0;
    for (; scanner.AtDigit(); ++digits) {
      const int digit = scanner.TakeDigit();
      if (digits < wanted) {
        fraction = fraction * 10 + digit;
      } else if (digit != 0) {
        scanner.Fail();  // finer than the unit
      }
    }
    for (; digits < wanted; ++digits) fraction *= 10;
  }
  return seconds * UnitsPerSecond(unit) + fraction;
}

// Seconds east of UTC.
std::int64_t ScanOffset(Scanner& scanner) {
  if (scanner.Take('Z')) return 0;
  const bool west = scanner.Take('-');
  if (!west) scanner.Expect('+');
  std::int64_t seconds = 3600 * scanner.Number(2, 2, 0, 23);
  if (scanner.Take(':') || scanner.AtDigit()) seconds += 60 * scanner.Number(2, 2, 0, 59);
  return west ? -seconds : seconds;
}

}  // namespace

std::int64_t UnitsPerSecond(TimeUnit::type unit) {
  switch (unit) {
    case TimeUnit::SECOND:
      return 1;
    case TimeUnit::MILLI:
      return 1'000;
    case TimeUnit::MICRO:
      return 1'000'000;
    case TimeUnit::NANO:
      return 1'000'000'000;
  }
  return 1;
}

void WriteIsoDate(std::int64_t days, std::string& out) {
  const Date date = DateOf(days);
  if (date.year >= 0 && date.year <= 9999) {
    fmt::format_to(std::back_inserter(out), "{:04}-{:02}-{:02}", date.year, date.month, date.day);
  } else {
    fmt::format_to(std::back_inserter(out), "{:+07}-{:02}-{:02}", date.year, date.month, date.day);
  }
}

void WriteIsoTime(std::int64_t value, TimeUnit::type unit, std::string& out) {
  const std::int64_t seconds = value / UnitsPerSecond(unit);
  const std::int64_t fraction = value % UnitsPerSecond(unit);
  fmt::format_to(
      std::back_inserter(out), "{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60
  );
  if (unit == TimeUnit::SECOND) return;
  fmt::format_to(std::back_inserter(out), ".{:0{}}", fraction, FractionDigits(unit));
}

void WriteIsoTimestamp(std::int64_t value, TimeUnit::type unit, bool zoned, std::string& out) {
  const std::int64_t per_day = kSecondsPerDay * UnitsPerSecond(unit);
  const std::int64_t days = FloorDiv(value, per_day);
  // The first day that 64 bits reach may begin before them.
  const auto midnight = static_cast<Int128>(days) * per_day;
  WriteIsoDate(days, out);
  out += 'T';
  WriteIsoTime(static_cast<std::int64_t>(value - midnight), unit, out);
  if (zoned) out += 'Z';
}

std::optional<std::int64_t> ParseIsoDate(std::string_view text) {
  Scanner scanner(text);
  const std::int64_t days = ScanDate(scanner);
  if (!scanner.ok() || !scanner.AtEnd()) return std::nullopt;
  return days;
}

std::optional<std::int64_t> ParseIsoTime(std::string_view text, TimeUnit::type unit) {
  Scanner scanner(text);
  const std::int64_t value = ScanTime(scanner, unit);
  if (!scanner.ok() || !scanner.AtEnd()) return std::nullopt;
  return value;
}

std::optional<std::int64_t> ParseIsoTimestamp(
    std::string_view text, TimeUnit::type unit, bool zoned
) {
  Scanner scanner(text);
  auto value = static_cast<Int128>(ScanDate(scanner)) * kSecondsPerDay * UnitsPerSecond(unit);
  if (zoned || !scanner.AtEnd()) {
    if (!scanner.Take('T')) scanner.Expect(' ');
    value += ScanTime(scanner, unit);
    if (zoned) value -= static_cast<Int128>(ScanOffset(scanner)) * UnitsPerSecond(unit);
  }
  if (!scanner.ok() || !scanner.AtEnd()) return std::nullopt;
  if (value < std::numeric_limits<std::int64_t>::min()) return std::nullopt;
  if (value > std::numeric_limits<std::int64_t>::max()) return std::nullopt;
  return static_cast<std::int64_t>(value);
}

}  // namespace millstream
