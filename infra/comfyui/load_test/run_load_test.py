"""The checklist's load test: `comfyload run` under the checklist's own name and flags.

python run_load_test.py --server http://127.0.0.1:8188 --workflow ../samples/book_medium.json \
    --jobs 12 --concurrency 4 --timeout 420 --output ../../observability/load.json
"""

import sys

from comfyload.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "run")
    main()
