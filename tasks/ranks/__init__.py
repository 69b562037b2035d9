"""Process groups that train one model together: started, watched, and never left behind."""
