# SPDX-License-Identifier: Apache-2.0
from millstream.command import main

main()
