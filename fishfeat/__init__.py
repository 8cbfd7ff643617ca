"""A folder of labelled images becomes a classifier and an estimate of how well it will do.

The public names are listed in `__init__.pyi` and are loaded when they are first used: importing the
package loads neither torch nor scikit-learn.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
