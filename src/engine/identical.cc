// SPDX-License-Identifier: Apache-2.0
#include "engine/identical.h"

#include "engine/sampler.h"
#include "engine/wire.h"

namespace millstream {

std::string GreedyKey(const Request& request) {
  if (!IsGreedy(request.sampling)) return {};
  Request asked = request;
  asked.id = 0;
  asked.name.clear();
  asked.random = {};  // nothing is drawn
  return EncodeRequest(asked);
}

}  // namespace millstream
