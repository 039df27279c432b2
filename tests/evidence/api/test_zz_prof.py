import time, cProfile, pstats
from tests.endpoints import prepared
def test_x(world):
    p=cProfile.Profile(); t=time.process_time(); p.enable(); prepared(world); p.disable(); print("PREP cpu", time.process_time()-t)
    pstats.Stats(p).sort_stats("cumtime").print_stats(35)
