// SPDX-License-Identifier: Apache-2.0
#include "base/log.h"

#include "spdlog/sinks/stdout_color_sinks.h"

namespace millstream {

void StartLog(LogLevel level) {
  auto logger = spdlog::stderr_color_mt("millstream");
  logger->set_pattern("%^%l%$: %v");
  logger->set_level(
      level == LogLevel::kQuiet     ? spdlog::level::err
      : level == LogLevel::kVerbose ? spdlog::level::debug
                                    : spdlog::level::info
  );
  spdlog::set_default_logger(std::move(logger));
}

}  // namespace millstream
